"""A client of the API on the command line. It speaks HTTP only, and imports nothing else of this project."""
