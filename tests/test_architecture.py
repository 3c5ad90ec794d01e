"""The design, enforced: who may import whom, who names adapters, who writes a document's status, and which names of
libraries are used that no documentation promises."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from app.events.catalogue import CATALOGUE

APP = Path(__file__).parent.parent / "app"

# From the ground up. A package may import what is on a lower level, never its own level or a higher one.
LEVELS: list[set[str]] = [
    {"errors", "telemetry", "processors", "client"},
    {"limiter", "settings", "migrations"},
    {"web"},
    {"database", "outbound", "storage"},
    {"encryption", "events", "idempotency", "quotas", "upkeep"},
    {"auth", "files", "jobs"},
    {"documents"},
    {"audit", "backup", "processing", "transfer"},
    {"check", "inbox", "remote", "webhooks"},  # the inbox uploads, and what it uploads may be processed
    {"accounts", "operators", "testing"},
    {"console"},
    {"wiring"},
    {"server"},
    {"main", "demo", "commands"},
    {"cli"},
    {"__main__"},
]
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
PORTS = {"storage", "processors", "database"}
DISPATCHERS = {"app.jobs.dispatch.in_process", "app.jobs.dispatch.broker"}
INBOXES = {"app.inbox.folder", "app.inbox.bucket"}
LOOSE = 10  # modules at the root of a tree, at the most
FEW = 20  # private names of libraries, at the most

CANARIES = "tests/unit/test_private_names.py::"
SOLVERS = "tests/unit/test_route.py::test_arguments_are_those_of_fastapi"
PROTOCOL = "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol"


class Private(NamedTuple):
    """Names of libraries that are private or that no documentation promises, and the test that fails if one changes."""

    owner: str
    names: str
    test: str


# All that the application uses. That each is still there is a test of its own. Of a protocol, asyncio promises
# connection_made, data_received, pause_writing and their like, and httptools on_message_begin, on_headers_complete and
# on_message_complete.
PRIVATE = (
    Private(
        "fastapi.dependencies.models:Dependant",
        "background_tasks_param_name call dependencies name path_params query_params request_param_name",
        SOLVERS,
    ),
    Private("fastapi.dependencies.utils", "request_params_to_args", SOLVERS),
    Private("fastapi.routing:APIRoute", "dependant", SOLVERS),
    Private("fastapi.routing:APIRoute", "handle", CANARIES + "test_routes_in_a_flat_list_are_served"),
    Private("fastapi:APIRouter", "routes", CANARIES + "test_routes_in_a_flat_list_are_served"),  # and scope["route"]
    Private(PROTOCOL, "app", "tests/api/test_protocol.py::test_no_state_is_prolonged_by_bytes"),
    Private(PROTOCOL, "cycle", "tests/flows/test_memory.py::test_bodies_that_are_refused_are_not_kept"),
    Private(PROTOCOL, "headers parser", "tests/api/test_protocol.py::test_an_offer_to_upgrade_is_ignored"),
    Private(PROTOCOL, "send_400_response", "tests/api/test_protocol.py::test_what_is_not_http"),
    Private(
        PROTOCOL,
        "shutdown",
        "tests/flows/test_shutdown.py::test_a_request_on_its_way_to_a_stopping_server_is_answered",
    ),
    Private("sqlalchemy.exc:DBAPIError", "instance", CANARIES + "test_an_error_of_the_driver_as_sqlalchemy_s"),
    Private("sqlalchemy.sql.compiler:SQLCompiler", "binds positiontup", CANARIES + "test_a_compiled_statement"),
)
DOCUMENTED = {"_asdict", "_exit", "_fields", "_make", "_replace"}  # of os and of named tuples, underscore or not


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the application by its dotted name."""
    found = {}
    for path in APP.rglob("*.py"):
        if "versions" in path.relative_to(APP).parts or path.name == "env.py":
            continue  # run by alembic
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
    assert {package(name) for name in modules()} - {"app"} | {"console"} == set(LEVEL)  # which may be left out


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
    shared = (
        ".ballast",
        ".base",
        ".batches",
        ".child",
        ".confined",
        ".disk",
        ".program",
        ".readers",
        ".sandbox",
        ".sessions",
        ".statements",
        ".tree",
    )
    adapters -= {name for name in adapters if name.endswith(shared)}
    for name, tree in modules().items():
        named = imports(tree) & (adapters | DISPATCHERS | INBOXES)
        assert name == "app.wiring.adapters" or not named - {name}, f"{name} names {named}"


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
    assert [name for name, code in named if "_SWAP" in code] == ["_swap_from"]
    assert [name for name, code in named if "_swap_from(" in code] == ["_swap_from", "move"]


def test_one_module_writes_the_state_of_jobs() -> None:
    assert {name for name, tree in modules().items() if written_columns(tree, "jobs")} == {"app.jobs.transitions"}


def test_tables_are_changed_only_by_their_own_modules() -> None:
    """No other module gets hold of an update of `documents` or `jobs` at all."""
    documents = {f"app.documents.{name}" for name in ("repository", "trash", "holds")}
    for table, homes in (("documents", documents), ("jobs", {"app.jobs.transitions"})):
        for name, tree in modules().items():
            calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            assert name in homes or not any(_updates(call, table) for call in calls), name


def strings(tree: ast.AST) -> Iterator[str]:
    """Every text in the code, those that an f-string is made of too, but for what is logged, and examples."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case (
                ast.Call(func=ast.Attribute(value=ast.Name(id="log")))
                | ast.keyword(arg="json_schema_extra" | "examples")
            ):
                continue
            case ast.Constant(value=str(text)):
                yield text
        yield from strings(node)


def test_actors_are_made_in_one_place() -> None:
    others = {name: tree for name, tree in modules().items() if name != "app.auth.principal"}  # a role, and a scope
    made = [(name, text) for name, tree in others.items() for text in strings(tree)]
    made = [
        (name, text)
        for name, text in made
        if text == "operator" or re.match("(user|key|operator|worker|remote):", text)
    ]
    assert made == [
        ("app.telemetry.context", each) for each in ("operator", "user:", "key:", "operator:", "worker:", "remote:")
    ]


def test_events_are_named_in_the_catalogue_only() -> None:
    """And each of the catalogue is used. What webhooks are told has names of its own, some of which are the same."""
    words = set[str]()
    for name, tree in modules().items():
        if not name.startswith("app.events.catalogue"):
            named = [] if name.startswith("app.webhooks.") else strings(tree)
            assert not [text for text in named if text in CATALOGUE or text in ("document.", "job.")], name
            words |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            words |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {event.__name__ for event in CATALOGUE.values()} <= words


@pytest.mark.parametrize("tree", [APP, APP.parent / "tests"], ids=lambda tree: tree.name)
def test_few_modules_lie_loose(tree: Path) -> None:
    assert len([path for path in tree.glob("*.py") if path.name != "__init__.py"]) <= LOOSE


def private_names(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """Names with an underscore that are used of what is not the application's, as far as a syntax tree can tell."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                found = [] if name in own else [name]
            case (
                ast.Attribute(attr=name)
                | ast.Call(
                    func=ast.Name(id="getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]
                )
            ):
                found = [name]
            case ast.ImportFrom(module=str(module), names=names):
                found = [*module.split("."), *(each.name for each in names)]
            case ast.Import(names=names):
                found = [part for each in names for part in each.name.split(".")]
            case _:
                continue
        yield from (name for name in found if name.startswith("_") and not name.endswith("__"))


@cache
def own_names() -> set[str]:
    """What the application's functions and assignments give a name."""
    found = set()
    for node in (node for tree in modules().values() for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                found.add(name)
    return found


@pytest.mark.parametrize("name", sorted(modules()))
def test_private_names_of_libraries_are_listed(name: str) -> None:
    listed = {each for private in PRIVATE for each in private.names.split()}
    assert set(private_names(modules()[name], own_names())) <= listed | DOCUMENTED


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("response._headers", {"_headers"}),
        ("self._own + self._theirs", {"_theirs"}),
        ("from library._inner import name", {"_inner"}),
        ("import library._inner", {"_inner"}),
        ("from library import _name", {"_name"}),
        ("getattr(response, '_headers', None)", {"_headers"}),
        ("super().__init__(error.__cause__)", set()),
    ],
)
def test_a_private_name_is_noticed(code: str, found: set[str]) -> None:
    assert set(private_names(ast.parse(code), {"_own"})) == found


@pytest.mark.parametrize("private", PRIVATE, ids=lambda private: f"{private.owner}.{private.names.split()[0]}")
def test_a_private_name_that_is_listed_is_used_and_tested(private: Private) -> None:
    words = set(re.findall(r"\w+", "".join(path.read_text() for path in APP.rglob("*.py"))))
    assert set(private.names.split()) <= words, "no longer used"
    file, _, test = private.test.partition("::")
    tree = ast.parse((APP.parent / file).read_text())
    assert test in {getattr(node, "name", None) for node in tree.body}, "no such test"


def test_private_names_are_few() -> None:
    assert sum(len(private.names.split()) for private in PRIVATE) <= FEW
