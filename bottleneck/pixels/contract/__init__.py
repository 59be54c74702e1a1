"""How an image file becomes pixels, by definition."""
