"""What a cell and a row are as bytes: names, types, literals, forms, rows, and times of cells."""
