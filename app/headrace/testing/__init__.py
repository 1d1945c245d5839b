"""For teams that test what they built on Headrace; needs pytest.

`conformance` holds the promises of the ports as suites that any backend can run.
"""
