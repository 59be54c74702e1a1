"""Describe the custom code of a base as plain data."""
