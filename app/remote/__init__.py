"""Work that is done elsewhere: workers without a database or a bucket claim jobs over HTTP, and settle them.

A job that was claimed is WAITING, under a detached lease: no process of the service need live until it is settled.
"""
