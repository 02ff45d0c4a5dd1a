"""What a migration does to a row, once both tables are known; nothing here talks to a server."""
