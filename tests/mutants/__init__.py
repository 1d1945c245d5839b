"""Mutants: the product with one mistake each, which a safety checker of both machines has to find by name; of one where
the other has no such part, or cannot see the mistake (`catalogue.py`).

`make mutants` copies the code for each mutant, makes the mistake in the copy, and simulates seeds with it until a
checker finds something, or two minutes are over. A promise that is merely late (I10) does not count. A mutant that
survives is a gap in the checkers, or a line of the engine that nobody needs.

`make mutants ARGS=--servers` does the same on real servers, with seeds of the crash machine: short ones, of the faults,
the crash points and the events that reach the mistake (`hunts.py`). A run that gets stuck is judged all the same, by
what holds at any time.
"""
