"""Images as numbers: headers, decoding, resizing, augmenting."""
