"""Pages for operators: what belongs to all accounts, and the service itself."""
