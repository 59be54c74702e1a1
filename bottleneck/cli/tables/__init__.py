"""Tables of results for a terminal, a module for each command group."""
