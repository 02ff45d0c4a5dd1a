"""Stores: how rows are read, written, scanned and counted; one module a kind of store."""
