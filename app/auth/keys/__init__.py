"""API keys: what programs prove themselves with. A key belongs to an account, and may do a part of what that may."""
