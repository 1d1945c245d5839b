"""Mutants: the engine with one mistake each, which a safety checker of the simulation has to find by name.

`make mutants` copies the code for each mutant, makes the mistake in the copy, and simulates seeds with it until a
checker finds something, or two minutes are over. A promise that is merely late (I10) does not count. A mutant that
survives is a gap in the checkers, or a line of the engine that nobody needs.
"""
