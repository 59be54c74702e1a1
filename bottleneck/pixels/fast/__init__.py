"""The same pixels faster, compiled by Numba."""
