"""One model again: base and head merged, and proved equal."""
