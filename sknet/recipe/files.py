"""Reading a recipe's YAML: safe, of bounded size, and no key twice; and finding its weights."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sknet.errors import UserError

MAX_RECIPE_BYTES = 1 << 20
# Of a checkpoint's directory.
WEIGHTS_FILE = "model.ckpt"
# PyYAML raises what its constructors meet (`2020-99-99`, `0x_`, `!!timestamp x`) as it comes.
_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice instead of taking the last silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def read_text(path: Path) -> str:
    """The text of a recipe file. Raises UserError if it is too large or can't be read."""
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise UserError(f"recipe {path} is larger than {MAX_RECIPE_BYTES} bytes")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path} can't be read: {error}") from None


def parse_mapping(text: str, *, where: str) -> dict[str, Any]:
    """Keys and values of a YAML text. Raises UserError if it is of another form."""
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except _YAML_ERRORS as error:
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{where}: expected lines of 'key: value'")
    return values


def parse_override(override: str) -> dict[str, Any]:
    """One key and its value from `key=value`. Raises UserError."""
    key, equals, value = override.partition("=")
    if not equals:
        raise UserError(f"override {override!r} has no '=': expected key=value")
    try:
        return {key.strip(): yaml.safe_load(value)}
    except _YAML_ERRORS:
        raise UserError(f"override {override!r}: the value is not valid YAML") from None


def with_weights(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the SHA-256 of the weights to start from, unless it is known.

    Raises UserError if there is no such file.
    """
    given = values.get("ckpt_path")
    if not isinstance(given, str) or not given:
        return dict(values)
    path = Path(given).absolute()
    if values.get("ckpt_sha256") is None:
        file = path / WEIGHTS_FILE if path.is_dir() else path
        try:
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"ckpt_path {given} can't be read: {error.strerror}") from None
        return {**values, "ckpt_path": str(file), "ckpt_sha256": digest}
    return {**values, "ckpt_path": str(path)}
