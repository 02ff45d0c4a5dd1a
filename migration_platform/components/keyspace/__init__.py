"""A `KeyspaceMigration` as Dagster sees it: tables, schema and cutover."""
