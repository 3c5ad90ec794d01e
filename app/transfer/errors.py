"""What stops a transfer."""


class TransferError(Exception):
    """The message is one line for the operator: why the transfer was refused, or why the copy cannot be vouched for."""
