"""How Dagster sees a migration: component types, one a file, and what their assets do in a run."""
