"""Changes to the syntax tree of a function or a constant, wherever in its module it is and however formatted."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path


def file_of(root: Path, where: str) -> Path:
    """The file of `module:function-or-constant`; what is in a class has its name before it: `module:Class.method`."""
    path = root.joinpath(*where.partition(":")[0].split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def changed(source: str, where: str, old: str, new: str) -> str:
    """The module's source with `new` in place of `old`, which must be in what `where` names exactly once.

    `old` is an expression, an argument of a call (`name=value`), or statements that follow each other. An empty `new`
    leaves out an item of a list, such as an argument.

    Raises LookupError when there is not exactly one such place.
    """
    module = ast.parse(source)
    [*_, name] = where.split(":")
    code = _named(module, name)
    places = list(_places(code, _nodes(old)))
    if len(places) != 1:
        raise LookupError(f"{where} has {len(places)} times {old}")
    [(node, field, at)] = places
    replacement = _nodes(new)
    if at is None:
        [replacement] = replacement
        setattr(node, field, replacement)
    else:
        getattr(node, field)[at] = replacement
    return ast.unparse(ast.fix_missing_locations(module))


def _named(code: ast.AST, name: str) -> ast.AST:
    first, _, rest = name.partition(".")
    found = [each for each in ast.iter_child_nodes(code) if first in _names(each)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} definitions of {first}")
    return _named(found[0], rest) if rest else found[0]


def _names(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _nodes(code: str) -> Sequence[ast.AST]:
    match statements := ast.parse(code).body:
        case [ast.Expr(value=expression)]:
            return [expression]
        case [ast.Assign(targets=[ast.Name(id=name)], value=value)]:
            return [ast.keyword(name, value)]
    return statements


def _places(code: ast.AST, wanted: Sequence[ast.AST]) -> Iterator[tuple[ast.AST, str, slice | None]]:
    """Where the nodes are: a field of a node and, if it is a list, a slice of it."""
    dumps = [ast.dump(each) for each in wanted]
    for node in ast.walk(code):
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                for start in range(len(value) - len(dumps) + 1):
                    end = start + len(dumps)
                    if [ast.dump(each) for each in value[start:end] if isinstance(each, ast.AST)] == dumps:
                        yield node, field, slice(start, end)
            elif isinstance(value, ast.AST) and [ast.dump(value)] == dumps:
                yield node, field, None
