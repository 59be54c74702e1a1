"""Pixels and who they are: scanning, decoding, splitting."""
