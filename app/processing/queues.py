"""The names of the queues in which jobs for a processor wait."""

KIND = "process"


def queue_of(processor: str, version: str = "") -> str:
    """Where jobs for a processor at this version wait. Without a version: what all its queues begin with."""
    return f"{KIND}/{processor}@{version}"


def processor_of(queue: str) -> str:
    """The processor in the name of a queue, or of what its queues begin with. Another kind's queue is its own."""
    return queue.removeprefix(f"{KIND}/").partition("@")[0]
