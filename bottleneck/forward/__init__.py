"""The forward pass: the frozen graph, its batches, its rounding."""
