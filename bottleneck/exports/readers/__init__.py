"""Readers that the card prints and bare processes run; never imported."""
