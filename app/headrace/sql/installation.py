"""The query on `headrace.installation`: one row with the name that the database gave itself."""

READ = "select id from headrace.installation"
"""Reads the one row."""
