"""The states of a connection. protocol.py says how long each may last."""

from enum import Enum


class State(Enum):
    """What a connection waits for."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and every request looks up its states

    NEW = "the first byte of the first request"
    HEADERS = "the end of a request's headers"
    WORK = "the application"
    BODY = "more of the body, which the application wants"
    IDLE = "another request"
    LINGER = "the client to read its answer, while it may still be sending"
    FLUSH = "the client to take the rest of the answer, before the connection closes"
    CLOSED = "nothing"
