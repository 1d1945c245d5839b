"""Figures with the command that makes them: `make bench`. Real servers, one run, ratios beside absolute numbers."""
