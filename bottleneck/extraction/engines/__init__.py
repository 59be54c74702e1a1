"""Where the workers of an extraction are: on this machine, on a Dask cluster, on a Ray cluster."""
