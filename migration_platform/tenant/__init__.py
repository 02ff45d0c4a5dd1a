"""Moving everything of one tenant to another: rows, the search index, and content."""
