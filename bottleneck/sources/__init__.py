"""Image sources: folders, tables and archives, listed and read in place.

`open_source` asks the kinds in the catalog, in order, which of them claims a location. What a relative path
says about class and split is decided in one place, `bottleneck.sources.layout`.
"""

from bottleneck.sources.open import open_source

__all__ = ["open_source"]
