"""Tables of results for a terminal, one module for each kind of command."""
