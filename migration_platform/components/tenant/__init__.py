"""A `TenantMove` as Dagster sees it: steps, plans, backups, checks."""
