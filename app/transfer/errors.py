"""The error that ends a transfer."""


class TransferError(Exception):
    """The transfer was refused, or its copy may be wrong. The message is one line for the operator."""
