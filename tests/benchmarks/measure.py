"""The size and shape of the code, and the journeys through it: `make measure`.

`make measure ARGS="--calls upload"` prints one journey call by call, to be read beside the code.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from tests.benchmarks.journeys import Journey, journeys
from tests.benchmarks.load import percentile
from tests.benchmarks.shape import HANDLER_LINES, Code

JOURNEYS = {
    "get": "GET /documents/{id}",
    "upload": "POST /documents, no key",
    "keyed-upload": "POST /documents, with key",
    "process": "POST .../process, with key",
    "job": "one job: claim, work, settle",
}


def main():
    wanted = _arguments()
    if wanted.calls:
        _print(journeys(wanted.tree)[wanted.calls].lines)
    else:
        _print(shape(Code(wanted.tree)))
        _print(table(journeys(wanted.tree)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make measure ARGS=…", description="Size and shape of the code.")
    parser.add_argument("--calls", choices=JOURNEYS, help="print the calls of this journey")
    parser.add_argument("--tree", type=Path, default=Path(), help="another checkout of the project, to compare with")
    wanted = parser.parse_args()
    wanted.tree = wanted.tree.resolve()
    return wanted


def _print(lines: Iterable[str]):
    sys.stdout.writelines(f"{line}\n" for line in lines)


def shape(code: Code) -> Iterable[str]:
    files, functions = code.file_lines, code.function_lines
    private, untested = code.private_names
    names, thousands = code.public_names, code.lines_counted / 1000
    yield f"{'':58}{'now':>8}{'limit':>8}   (!: beyond it)"
    yield _row("lines of app", code.lines, 10_400)
    yield _row("lines of its core", code.core_lines, 6_900)
    yield _row("public functions and classes per 1,000 lines", round(len(names) / thousands, 1), 18)
    yield _row("  their names", len(names))
    yield _row("  with public names that are assigned", len(names | code.assigned_names))
    yield _row("private names of libraries", private, 20)
    yield _row("  entries without a test", len(untested), 0)
    yield from (f"    {each}" for each in untested)
    yield _row("lines of a file, median", median(files.values()), 100)
    yield _row("  p90", percentile(list(files.values()), 0.9), 220)
    yield _row("  max", max(files.values()), 300)
    yield from (f"    {file} {lines}" for file, lines in files.items() if lines > 300)
    yield _row("lines of a function, median", median(functions), 8)
    yield _row("  p90", percentile(functions, 0.9))
    yield _row("  max", max(functions))
    yield _row(f"route handlers of more than {HANDLER_LINES} lines", len(code.long_handlers), 0)
    yield from (f"    {handler} {lines}" for handler, lines in code.long_handlers.items())
    yield _row("modules at the root of app", code.loose("app"), 10)
    yield _row("modules at the root of tests", code.loose("tests"), 10)
    yield _row("import cycles among files", len(code.cycles_of_files), 0)
    yield _row("import cycles among packages", len(code.cycles_of_packages), 0)
    yield from (f"    {' '.join(sorted(cycle))}" for cycle in code.cycles_of_packages)
    yield _row("public things with a docstring, in %", round(code.docstring_share * 100))


def table(found: dict[str, Journey]) -> Iterable[str]:
    titles = next(iter(found.values())).figures
    yield f"\n{'':28}" + "".join(f"  {title:>9}" for title in titles)
    for name, journey in found.items():
        figures = journey.figures.items()
        yield f"{JOURNEYS[name]:28}" + "".join(f"  {figure:{max(len(title), 9)}}" for title, figure in figures)


def _row(title: str, now: float, limit: int | None = None) -> str:
    over = " !" if limit is not None and now > limit else ""
    return f"{title:58}{now:8,g}{'' if limit is None else f'{limit:8,}'}{over}"


if __name__ == "__main__":
    main()
