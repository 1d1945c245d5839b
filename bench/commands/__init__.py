"""The command line of the benchmark: a file per verb."""
