"""The arrows of the design, enforced: who may import whom, who names adapters, who writes a document's status."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "app"

# From the ground up. A package may import what is on a lower level, never its own level or a higher one.
LEVELS: list[set[str]] = [
    {"errors", "telemetry", "processors"},
    {"settings", "migrations"},
    {"web"},
    {"database", "storage"},
    {"events", "idempotency", "dispatch", "upkeep"},
    {"auth"},
    {"documents"},
    {"uploads"},
    {"processing", "transfer"},
    {"wiring"},
    {"server"},
    {"main", "demo"},
    {"cli"},
    {"__main__"},
]
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
PORTS = {"storage", "dispatch", "processors", "database"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the application by its dotted name."""
    found = {}
    for path in APP.rglob("*.py"):
        if "versions" in path.parts or path.name in {"env.py", "text_child.py"}:
            continue  # run by alembic, and as a script of its own
        name = ".".join(path.relative_to(APP.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module) -> set[str]:
    """The modules of the application that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else node.module for name in whole}
    return {name for name in found if name == "app" or name.startswith("app.")}


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def test_every_package_has_a_level() -> None:
    assert {package(name) for name in modules()} - {"app"} == set(LEVEL)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_downwards(name: str) -> None:
    own = package(name)
    for imported in imports(modules()[name]):
        if package(imported) not in {own, "app"}:
            assert LEVEL[package(imported)] < LEVEL[own], f"{name} imports {imported}"


def test_no_cycles_between_modules() -> None:
    graph = {name: imports(tree) - {name} for name, tree in modules().items()}
    # A package's __init__ re-exports its modules, and is what others import.
    graph = {name: {each for each in targets if each in modules()} for name, targets in graph.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_only_wiring_names_adapters() -> None:
    adapters = {name for name in modules() if package(name) in PORTS and name.count(".") == 2}
    shared = (".base", ".batches", ".prepared", ".readers", ".scratch", ".threads", ".turns")
    adapters -= {name for name in adapters if name.endswith(shared)}
    for name, tree in modules().items():
        named = imports(tree) & adapters
        assert name == "app.wiring" or not named - {name}, f"{name} names {named}"


def test_documents_know_nothing_of_processing() -> None:
    for name, tree in modules().items():
        if package(name) == "documents":
            assert not any(package(imported) == "processing" for imported in imports(tree)), name


def written_columns(tree: ast.Module, table: str) -> set[str]:
    """Functions and constants of a module that pass `status=` or `state=` to a statement on the table."""
    column = {"documents": "status", "jobs": "state"}[table]
    constants = {ast.unparse(each.targets[0]): each for each in tree.body if isinstance(each, ast.Assign)}
    writers = set()
    for name, code in [*((each.name, each) for each in functions(tree)), *constants.items()]:
        calls = [node for node in ast.walk(code) if isinstance(node, ast.Call)]
        sets = any(keyword.arg == column for call in calls for keyword in call.keywords if _is_values(call))
        changes = any(_updates(call, table) for call in calls)
        if sets and changes:
            writers.add(name)
    return writers


def functions(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def _is_values(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "values"


def _updates(call: ast.Call, table: str) -> bool:
    return (
        isinstance(call.func, ast.Name)
        and call.func.id == "update"
        and bool(call.args)
        and isinstance(call.args[0], ast.Name)
        and call.args[0].id == table
    )


def test_one_function_writes_the_status_of_documents() -> None:
    writers = {(name, each) for name, tree in modules().items() for each in written_columns(tree, "documents")}
    assert writers == {("app.documents.repository", "_SWAP")}
    named = [(each.name, ast.unparse(each)) for each in functions(modules()["app.documents.repository"])]
    assert [name for name, code in named if "_SWAP" in code] == ["move"]


def test_one_module_writes_the_state_of_jobs() -> None:
    assert {name for name, tree in modules().items() if written_columns(tree, "jobs")} == {"app.processing.repository"}


def test_tables_are_changed_only_by_their_own_modules() -> None:
    """No other module gets hold of an update of `documents` or `jobs` at all."""
    for table, home in (("documents", "app.documents.repository"), ("jobs", "app.processing.repository")):
        for name, tree in modules().items():
            calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            assert name == home or not any(_updates(call, table) for call in calls), name
