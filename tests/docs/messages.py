"""Every message that the product may end or refuse with, as found in its source.

A message is known by its text with `…` for what it fills in. Found are the texts of

- calls of error classes, wherever they are raised (`UserError(f"…")`, `cls(…)` within one of them);
- what a launcher says of a job that ended, which becomes an error's text later (SAID_IN);
- tables of advice that errors end with (TABLES).

A call that only passes another message on (`UserError(str(error))`) has no text of its own.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sknet", "infra", "tasks", "flows")
# Functions whose returned, yielded or filled in texts become messages.
SAID_IN = {
    "flows/revalidate.py": ("revalidate",),
    "infra/launch/msrun.py": ("follow", "_outcome"),
    "infra/launch/gang.py": ("_losses",),
}
TABLES = {"infra/s3/errors.py": ("_ADVICE",)}
# For ourselves, and a library's own whose text is an operation's name.
NOT_FOR_USERS = {"AssertionError", "ClientError"}
BLANK = "…"


@dataclass(frozen=True, order=True)
class Message:
    """A text, and where it is."""

    text: str
    place: str
    """As `sknet/recipe/__init__.py`: without a line, which changes more often than the message."""
    error: str
    """The class, or what says it."""


def messages(root: Path = ROOT) -> list[Message]:
    """Of all packages, sorted by text."""
    found: set[Message] = set()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            place = path.relative_to(root).as_posix()
            found.update(messages_of(path.read_text("utf-8"), place))
    return sorted(found)


def messages_of(source: str, place: str) -> Iterator[Message]:
    """Of one file."""
    tree = ast.parse(source)
    constants = _constants(tree)
    for error, node in _candidates(tree, place):
        text = template(node, constants)
        # Without a word of its own, it only passes another message on.
        if text is not None and re.search(r"[A-Za-z]{2}", text):
            yield Message(text, place, error)


def template(node: ast.expr, constants: dict[str, str] | None = None) -> str | None:
    """The text of a string expression with `…` for what is filled in; None if it is none."""
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
    """Texts that the module names, such as a file's name."""
    return {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _candidates(tree: ast.Module, place: str) -> Iterator[tuple[str, ast.expr]]:
    for error, call in _error_calls(tree):
        yield from ((error, argument) for argument in call.args)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in SAID_IN.get(place, ()):
            yield from (("launcher", value) for value in _said(node))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names & set(TABLES.get(place, ())):
                yield from (("advice", value) for value in node.value.values)


def _said(function: ast.FunctionDef) -> Iterator[ast.expr]:
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
    """Calls of classes that are named as errors, `cls` being the class around it."""
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
