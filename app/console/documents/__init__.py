"""Documents: the list, each one, uploads, and what forms do with them."""
