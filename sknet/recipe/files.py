"""Read a recipe's YAML: limited in size and depth, and every value as it is written."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.base.files import file_sha256, is_directory
from sknet.errors import UserError

MAX_RECIPE_BYTES = 1 << 20

WEIGHTS_FILE = "model.ckpt"
"""Name of the weights in a checkpoint's directory."""

# PyYAML's constructors raise these for texts such as `2020-99-99`, `0x_` and `!!timestamp x`.
_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


MAX_DEPTH = 16
"""Brackets and blocks within each other. PyYAML's time grows with the square of the depth."""

_PLAIN_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9_]*)|0[xX][0-9a-fA-F_]+|0b[01_]+")


class _Loader(yaml.SafeLoader):
    """Safe YAML, which takes each value as it is written.

    YAML 1.1 reads `010` as 8, `1:30` as 90, `no` as false and `2026-01-02` as a date, and PyYAML
    silently takes the last of two equal keys. All of these are errors here, and so are merged keys
    (`<<`) and aliases, with which a short text describes a huge value.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _fault("a key is no name", key.start_mark)
            if key.tag == "tag:yaml.org,2002:merge":
                raise _fault("the key << is not supported: write the values here", key.start_mark)
            if key.value in first:
                line = first[key.value].line + 1
                raise _fault(
                    f"key {key.value!r} is given twice, first in line {line}", key.start_mark
                )
            first[key.value] = key.start_mark
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if not _PLAIN_NUMBER.fullmatch(node.value):
            raise _fault(_rewritten(node.value, value), node.start_mark)
        return int(value)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value = super().construct_yaml_float(node)
        if ":" in node.value:
            raise _fault(_rewritten(node.value, value), node.start_mark)
        return float(value)

    def construct_yaml_bool(self, node: yaml.ScalarNode) -> bool:
        value = super().construct_yaml_bool(node)
        if node.value.lower() not in ("true", "false"):
            raise _fault(_rewritten(node.value, str(value).lower()), node.start_mark)
        return bool(value)

    def construct_yaml_timestamp(self, node: yaml.ScalarNode) -> Any:
        raise _fault(_rewritten(node.value, "a date"), node.start_mark)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.get_event()  # type: ignore[no-untyped-call]  # no type in the stubs
            message = f"the alias *{alias.anchor} is not supported: write the value again"
            raise _fault(message, alias.start_mark)
        return super().compose_node(parent, index)

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        self._refuse_depth(self.flow_level + 1)
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        self._refuse_depth(len(self.indents))
        return bool(super().add_indent(column))

    def _refuse_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _fault(f"values are nested deeper than {MAX_DEPTH} levels", self.get_mark())


for _kind in ("int", "float", "bool", "timestamp"):
    _Loader.add_constructor(
        f"tag:yaml.org,2002:{_kind}", getattr(_Loader, f"construct_yaml_{_kind}")
    )


def _fault(message: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=f"line {mark.line + 1}: {message}")


def _rewritten(text: str, value: object) -> str:
    return (
        f"YAML reads {text} as {value}: write a decimal number, true or false, or put the text in "
        "quotes"
    )


def read_text(path: Path) -> str:
    """Return the text of a recipe file.

    Raises:
        UserError: The file is too large or can't be read.
    """
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise UserError(f"recipe {path} is larger than {MAX_RECIPE_BYTES} bytes")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path} can't be read: {error}") from None


def parse_mapping(text: str, *, where: str) -> dict[str, Any]:
    """Return the keys and values of a YAML text.

    Raises:
        UserError: The text is no valid YAML, or no mapping from names to values.
    """
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except _YAML_ERRORS as error:
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{where}: expected lines of 'key: value'")
    return values


def parse_override(override: str) -> dict[str, Any]:
    """Return the key and the value of a `key=value` text; the value is YAML.

    Raises:
        UserError: The text has another form.
    """
    key, equals, value = override.partition("=")
    if not equals:
        raise UserError(f"--set {override!r} has no '=': expected KEY=VALUE")
    try:
        return {key.strip(): yaml.load(value, Loader=_Loader)}  # noqa: S506 (a SafeLoader)
    except _YAML_ERRORS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--set {override!r} is not valid YAML: {reason}") from None


def with_weights(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with an absolute `ckpt_path` and its SHA-256, unless that is given.

    Raises:
        UserError: The weights can't be read.
    """
    given = values.get("ckpt_path")
    if not isinstance(given, str) or not given:
        return dict(values)
    path = Path(given).absolute()
    if values.get("ckpt_sha256") is not None:
        return {**values, "ckpt_path": str(path)}
    file = path / WEIGHTS_FILE if is_directory(path) else path
    try:
        return {**values, "ckpt_path": str(file), "ckpt_sha256": file_sha256(file)}
    except OSError as error:
        raise UserError(f"ckpt_path {given} can't be read: {error.strerror}") from None
