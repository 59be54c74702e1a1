"""Artefacts that live without this package."""
