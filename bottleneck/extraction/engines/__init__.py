"""Where the workers of an extraction are: here, on Dask, on Ray."""
