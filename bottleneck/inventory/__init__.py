"""Who the images are: scan, index, duplicates, split, checks."""
