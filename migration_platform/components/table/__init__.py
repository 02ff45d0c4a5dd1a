"""A `TableMigration` as Dagster sees it: attributes, assets, checks, runs."""
