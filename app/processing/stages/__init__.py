"""Pipelines: processors that run one after the other in one job.

What each stage makes is kept, under a key made of all that it depends on. So an attempt begins after the last stage
that was finished, whoever finished it. `pipeline.py` says what a pipeline is, `run.py` is one attempt from top to
bottom, `product.py` what comes of it, `kept.py` what is kept, and `retention.py` for how long.
"""
