"""For authors of workers: whether a worker keeps the rules of docs/remote-workers.md, seen from outside.

It speaks HTTP only, to the service as a user and between the worker and the service as a proxy: it imports the client,
and nothing else of this project.
"""
