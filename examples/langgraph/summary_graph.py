"""A LangGraph as a processor: another attempt goes on after the last node that was finished, and repeats none."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypedDict

import structlog
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langsmith import tracing_context
from pydantic import BaseModel, Field

from app.processors.base import Params, Permanent, Report, Source

log = structlog.get_logger()


class SummaryParams(Params):
    sentences: int = Field(1, ge=1, le=10, description="How many sentences are left of each section.")


class SummaryResult(BaseModel):
    text: str
    sections: int


class State(TypedDict, total=False):
    """What the nodes hand on, all of which is in the checkpoints."""

    text: str
    sentences: int
    sections: list[str]
    summaries: list[str]
    summary: str


def split(state: State) -> State:  # LangGraph runs what is not async in a thread
    return {"sections": [part for each in re.split(r"\f|\n{2,}", state["text"]) if (part := each.strip())]}


async def summarise(state: State) -> State:
    return {"summaries": [await ask_model(each, state["sentences"]) for each in state["sections"]]}


async def ask_model(section: str, sentences: int) -> str:
    """Return the first sentences. A model would be asked here, and Transient raised while it does not answer."""
    return " ".join(re.split(r"(?<=[.!?])\s+", section, maxsplit=sentences)[:sentences])


def collect(state: State) -> State:
    return {"summary": "\n\n".join(state["summaries"])}


PROGRESS = {"split": 0.05, "summarise": 0.95, "collect": 1.0}  # when they are finished
GRAPH = StateGraph(State).add_sequence([split, summarise, collect]).add_edge(START, "split")


class SummaryProcessor:
    name = "summary"
    version = "1"  # another one makes COMPLETED documents processable again, and never goes on with these checkpoints
    description = "Summarises what the processor `text` has read, section by section."
    at_once = 2  # concurrent attempts in one process, because a model takes much memory; None: JOB_CONCURRENCY
    params = SummaryParams
    result = SummaryResult  # describes the data in the OpenAPI; what does not fit it is not published

    def __init__(self) -> None:
        self._checkpoints = Path(os.environ["GRAPH_CHECKPOINTS"])
        self._checkpoints.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run(self, source: Source, params: SummaryParams, report: Report) -> dict[str, Any]:
        thread = {"configurable": {"thread_id": str(source.job_id)}}
        async with self._graph(source) as graph:
            begun = (await graph.aget_state(thread)).values
            given = None if begun else {"text": await _text(source), "sentences": params.sentences}
            async for event in graph.astream(given, thread, stream_mode="tasks", durability="sync"):
                if "input" in event:
                    log.info("graph.node", node=event["name"], attempt=source.attempt)
                elif not event["error"]:
                    report(PROGRESS[event["name"]])
            state = (await graph.aget_state(thread)).values
        return {"text": state["summary"], "sections": len(state["sections"])}

    @asynccontextmanager
    async def _graph(self, source: Source) -> AsyncIterator[CompiledStateGraph]:
        """The graph, with the checkpoints of this job in a file of its own, which stays if trying again may help."""
        path = self._checkpoints / f"{source.job_id}.db"
        try:
            with tracing_context(enabled=False):  # LangSmith would be sent the text
                async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
                    yield GRAPH.compile(checkpointer=saver)
        except Permanent:
            path.unlink()
            raise
        path.unlink()


async def _text(source: Source) -> str:
    extracted = await source.result("text")
    if extracted is None:
        raise Permanent("text-needed", "The text is missing: `text` has to run first, alone or as a stage.")
    return str(extracted["text"])
