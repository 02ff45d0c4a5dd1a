"""What follows the origin after a copy: changes are keys, and the rows are read again by them."""
