"""The Python API, one module for each verb."""
