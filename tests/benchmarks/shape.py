"""The size and the shape of the code, from its syntax trees: lines, names, docstrings, imports.

Lines of a file or of a function are physical lines: those of a function run from `def` to its end. Names, docstrings,
files and functions are counted without the versions of migrations, which are written once and never read again.
"""

import ast
import runpy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Second adapters, tools and what stands beside the service. The rest of `app` is its core.
OUTSIDE_CORE = (
    "cli.py",
    "database/postgresql.py",
    "database/sessions.py",
    "demo.py",
    "jobs/dispatch/broker/",
    "migrations/",
    "processors/",
    "storage/s3/",
)
METHODS = {"delete", "get", "head", "patch", "post", "put"}
HANDLER_LINES = 6


@dataclass(frozen=True)
class Module:
    """A file of the application. `path` is relative to `app`."""

    path: str
    text: str

    @property
    def name(self) -> str:
        return ".".join(("app", *Path(self.path).with_suffix("").parts)).removesuffix(".__init__")

    @property
    def package(self) -> str:
        """The folder that the module is in; one that lies loose in `app` stands for itself."""
        folder = Path(self.path).parent
        return ".".join(("app", *folder.parts)) if folder.parts else self.name

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def functions(self) -> Iterator[Function]:
        """All functions, those in classes and in other functions too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    @property
    def handlers(self) -> Iterator[Function]:
        """Functions that answer a route."""
        return (function for function in self.functions if any(map(_is_route, function.decorator_list)))

    @property
    def public(self) -> Iterator[Function | ast.ClassDef]:
        """Public functions and classes of the module."""
        return _public(self.tree)

    @property
    def documentable(self) -> Iterator[Function | ast.ClassDef]:
        """Public functions, classes, and methods of public classes."""
        for node in self.public:
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)

    @property
    def assigned(self) -> Iterator[str]:
        """Public names that the module assigns at its top level."""
        for node in self.tree.body:
            targets = {ast.Assign: "targets", ast.AnnAssign: "target"}.get(type(node))
            found = getattr(node, targets) if targets else []
            for target in found if isinstance(found, list) else [found]:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name) and name.id[0] != "_")


class Code:
    """A checkout of this project."""

    def __init__(self, root: Path):
        self._root = root
        files = sorted((root / "app").rglob("*.py"))
        self._all = [Module(str(file.relative_to(root / "app")), file.read_text()) for file in files]
        self.modules = [each for each in self._all if "migrations/versions/" not in each.path and each.text]

    @property
    def lines(self) -> int:
        return sum(module.lines for module in self._all)

    @property
    def core_lines(self) -> int:
        return sum(module.lines for module in self._all if not module.path.startswith(OUTSIDE_CORE))

    @property
    def lines_counted(self) -> int:
        """Lines of the modules whose names are counted."""
        return sum(module.lines for module in self.modules)

    @property
    def public_names(self) -> set[str]:
        """Names of public functions and classes. A name that several modules use is one to learn, and counts once."""
        return {node.name for module in self.modules for node in module.public}

    @property
    def assigned_names(self) -> set[str]:
        return {name for module in self.modules for name in module.assigned}

    @property
    def file_lines(self) -> dict[str, int]:
        return {module.path: module.lines for module in self.modules}

    @property
    def function_lines(self) -> list[int]:
        return [_length(each.lineno, each) for module in self.modules for each in module.functions]

    @property
    def long_handlers(self) -> dict[str, int]:
        """Lines of the bodies, without docstrings, that have more than HANDLER_LINES."""
        bodies = {f"{module.path} {each.name}": _body(each) for module in self.modules for each in module.handlers}
        return {name: lines for name, lines in bodies.items() if lines > HANDLER_LINES}

    @property
    def docstring_share(self) -> float:
        documented = [ast.get_docstring(node) is not None for module in self.modules for node in module.documentable]
        return sum(documented) / len(documented)

    def loose(self, folder: str) -> int:
        """Modules at the root of `app` or of `tests`."""
        return len([file for file in (self._root / folder).glob("*.py") if file.name != "__init__.py"])

    @property
    def cycles_of_files(self) -> list[set[str]]:
        return _cycles({module.name: set(self._imports(module)) - {module.name} for module in self.modules})

    @property
    def cycles_of_packages(self) -> list[set[str]]:
        package = {module.name: module.package for module in self.modules}
        graph: dict[str, set[str]] = {}
        for module in self.modules:
            targets = {package[name] for name in self._imports(module)} - {module.package}
            graph.setdefault(module.package, set()).update(targets)
        return _cycles(graph)

    @property
    def private_names(self) -> tuple[int, list[str]]:
        """How many names of libraries the list in tests/test_architecture.py has, and those that name no test."""
        listed = runpy.run_path(str(self._root / "tests/test_architecture.py")).get("PRIVATE", ())
        untested = [f"{owner}.{names}" for owner, names, test in listed if not self._has_test(test)]
        return len({(owner, name) for owner, names, _ in listed for name in names.split()}), untested

    def _has_test(self, test: str) -> bool:
        file, _, name = test.partition("::")
        tree = ast.parse((self._root / file).read_text())
        return name in {getattr(node, "name", None) for node in tree.body}

    def _imports(self, module: Module) -> Iterator[str]:
        """The application's own modules that a module imports, wherever in it."""
        names = {each.name for each in self.modules}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from {name if name in names else node.module for name in whole} & names


def _is_route(decorator: ast.expr) -> bool:
    return (
        isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute) and decorator.func.attr in METHODS
    )


def _public(node: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
    return (each for each in node.body if isinstance(each, Function | ast.ClassDef) and not each.name.startswith("_"))


def _body(function: Function) -> int:
    """Lines of a function's body without its docstring."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return _length(statements[0].lineno, function) if statements else 0


def _length(first: int, node: ast.stmt) -> int:
    assert node.end_lineno
    return node.end_lineno - first + 1


def _cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of nodes that all lead to each other."""
    reached = {node: _reached(graph, node) for node in graph}
    groups = {frozenset(each for each in reached[node] if node in reached[each]) for node in graph}
    return [set(group) for group in groups if len(group) > 1]


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found, ahead = set(), [start]
    while ahead:
        new: Iterable[str] = graph[ahead.pop()] - found
        found |= set(new)
        ahead += new
    return found
