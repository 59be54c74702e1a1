"""Care of a store: verify, repair, compact, rewrite, prune, copy."""
