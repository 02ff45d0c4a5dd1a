"""From the origin's pages to the target's writer: ranges, transformations, dead letters."""
