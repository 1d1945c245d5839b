"""Parcels are shipped: a van is found, the customer pays, and what fails is undone."""
