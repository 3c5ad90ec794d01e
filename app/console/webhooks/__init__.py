"""Webhooks: the list, each one with the log of its deliveries, and what forms do with them."""
