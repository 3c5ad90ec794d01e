"""The inbox: files that are dropped into a folder, or under a prefix of a bucket, become documents, each exactly once.

A file is read, committed as a document, and only then moved away. Whoever dies between the last two leaves a file whose
document is there: it is found again, by its name and its bytes, and moved. So two watchers do no harm either.
"""
