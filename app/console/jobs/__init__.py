"""Jobs: the list, each one, and all that match."""
