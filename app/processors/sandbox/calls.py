"""Calls one function in a `ConfinedChild`: the child's side of `call` in `app/processors/child.py`."""

import json
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def run(load: Callable[[], ModuleType], function: str, params: Mapping[str, Any]) -> None:
    """Call a function of the module that `load` imports, and print what became of it, as the model `Called` has it.

    What the function prints is lost. It may raise Permanent and Transient, which are imported if it imports them.
    """
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        value = getattr(load(), function)(sys.stdin.buffer, **params)
        line = json.dumps({"result": {"value": value}}, allow_nan=False)
    except MemoryError:
        line = json.dumps({"error": "out-of-memory"})
    except Exception as error:  # noqa: BLE001 - it may raise anything
        line = json.dumps({"result": {"raised": _described(error)}})
    out.write(line + "\n")
    out.flush()


def _described(error: Exception) -> dict[str, str]:
    base: Any = sys.modules.get("app.processors.base")
    if base and isinstance(error, base.ProcessingError):
        kind = "Permanent" if isinstance(error, base.Permanent) else "Transient"
        code, detail = error.code, error.detail
    else:
        kind = "ImportError" if isinstance(error, ImportError) else "Exception"
        code, detail = type(error).__name__, str(error)
    return {"kind": kind, "code": code[:100], "detail": detail[:2000]}
