"""Notes: a CRUD service whose routes publish what changes, and whose handlers keep an index of it."""
