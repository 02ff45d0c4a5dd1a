"""The demo and its sample data."""
