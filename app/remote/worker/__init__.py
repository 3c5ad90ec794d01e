"""A worker elsewhere that runs the processors of this installation: it needs the API of a service and a key, and no
database, bucket or broker.

claims ──> attempt ─┬─ the processor, as a local attempt runs it ──> complete, fail or release
                    └─ heartbeat ──> lost or cancelled: stop, settle nothing
"""
