"""Finds in the source code every message with which a command or a flow may end.

A message is a text with `…` for what it fills in. These texts are found:

- the arguments of error classes (`UserError(f"…")`, and `cls(…)` in their class methods);
- texts that a function returns, yields or formats, and that become an error's message later
  (TEXT_FUNCTIONS);
- tables of advice that is appended to errors (TABLES).

A call that only passes on another message, such as `UserError(str(error))`, has no text.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.processes import ROOT

PACKAGES = ("sknet", "infra", "tasks", "flows")
# Functions whose texts become messages, by file.
TEXT_FUNCTIONS = {
    "flows/revalidate.py": ("revalidate",),
    "infra/base/commands.py": ("_explained", "_no_option"),
    "infra/launch/msrun.py": ("follow", "_outcome"),
    "infra/launch/gang.py": ("_losses",),
    "infra/launch/host_agent.py": ("_refused",),
}
TABLES = {"infra/s3/errors.py": ("_ADVICE",)}
# Errors that users don't see, and a class of botocore that takes the name of an operation.
NOT_FOR_USERS = {"AssertionError", "ClientError"}
BLANK = "…"


@dataclass(frozen=True, order=True)
class Message:
    """The text of a message, and where it is."""

    text: str
    path: str
    """The file, such as `sknet/train.py`. It has no line number, which would change often."""
    error: str
    """The error class, `launcher` or `advice`."""


@cache
def messages(root: Path = ROOT) -> list[Message]:
    """Return the messages of all packages, sorted by text."""
    found: set[Message] = set()
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            found.update(messages_of(file.read_text("utf-8"), path))
    return sorted(found)


def messages_of(source: str, path: str) -> Iterator[Message]:
    """Yield the messages in the source code of one file."""
    tree = ast.parse(source)
    constants = _constants(tree)
    for error, node in _candidates(tree, path):
        text = template(node, constants)
        # A text without any word only passes on another message.
        if text is not None and re.search(r"[A-Za-z]{2}", text):
            yield Message(text, path, error)


def template(node: ast.expr, constants: dict[str, str] | None = None) -> str | None:
    """Return the text of a string expression with `…` for what is filled in.

    Returns:
        The text; None if the expression is not a string.
    """
    known = constants or {}
    match node:
        case ast.Constant(value=str(text)):
            return " ".join(text.split())
        case ast.JoinedStr(values=parts):
            shown = "".join(
                part.value
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
                else _filled_in(part, known)
                for part in parts
            )
            return re.sub(rf"{BLANK}(?:\s?{BLANK})+", BLANK, " ".join(shown.split()))
        case ast.Call(func=ast.Attribute(value=ast.JoinedStr() as text)):
            return template(text, known)  # f"…".replace(…)
    return None


def _filled_in(part: ast.expr, constants: dict[str, str]) -> str:
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name):
        return constants.get(part.value.id, BLANK)
    return BLANK


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the texts that are constants of the module, such as the name of a file."""
    return {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _candidates(tree: ast.Module, path: str) -> Iterator[tuple[str, ast.expr]]:
    for error, call in _error_calls(tree):
        yield from ((error, argument) for argument in call.args)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in TEXT_FUNCTIONS.get(path, ()):
            yield from (("launcher", value) for value in _texts(node))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names & set(TABLES.get(path, ())):
                yield from (("advice", value) for value in node.value.values)


def _texts(function: ast.FunctionDef) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        match node:
            case ast.Return(value=ast.Tuple(elts=values)):
                yield from values
            case ast.Assign(value=ast.IfExp(body=one, orelse=other)):
                yield from (one, other)
            case ast.Assign(value=ast.JoinedStr() as value):
                yield value
            case ast.Return(value=ast.expr() as value) | ast.Yield(value=ast.expr() as value):
                yield value


def _error_calls(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of classes that are named like errors. `cls` is the enclosing class."""
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, ast.ClassDef) else within
        if isinstance(node, ast.Call):
            name = _name(node.func)
            name = inner if name == "cls" else name
            if name.endswith("Error") and name not in NOT_FOR_USERS:
                yield name, node
        yield from _error_calls(node, inner)


def _name(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""
