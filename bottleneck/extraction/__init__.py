"""The one pass of every image through the frozen base."""
