"""`python -m app` with the example of a LangGraph, whose model refuses a text that begins with `Refuse` once, and never
answers one that begins with `Wait`, unless the environment has MODEL_ANSWERS."""

import asyncio
import os
import runpy
from itertools import count

import summary_graph

from app.processing import kind
from app.processors.base import Transient

ask_model = summary_graph.ask_model
refusals = count(1)


async def ask_failing_model(section: str, sentences: int) -> str:
    if section.startswith("Refuse") and next(refusals) == 1:
        raise Transient("model-unavailable", "The model does not answer.")
    if section.startswith("Wait") and "MODEL_ANSWERS" not in os.environ:
        await asyncio.Event().wait()
    return await ask_model(section, sentences)


if __name__ == "__main__":
    summary_graph.ask_model = ask_failing_model
    kind.uniform = lambda low, _high: low / 5
    runpy.run_module("app", run_name="__main__", alter_sys=True)
