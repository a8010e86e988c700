"""Read a recipe's YAML safely: limited in size, no key twice, weights named by their SHA-256."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.base.files import file_sha256
from sknet.errors import UserError

MAX_RECIPE_BYTES = 1 << 20

WEIGHTS_FILE = "model.ckpt"
"""Name of the weights in a checkpoint's directory."""

# PyYAML's constructors raise these for texts such as `2020-99-99`, `0x_` and `!!timestamp x`.
_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a repeated key, of which PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


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
        values = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
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
        raise UserError(f"override {override!r} has no '=': expected key=value")
    try:
        return {key.strip(): yaml.safe_load(value)}
    except _YAML_ERRORS:
        raise UserError(f"override {override!r}: the value is not valid YAML") from None


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
    file = path / WEIGHTS_FILE if path.is_dir() else path
    try:
        return {**values, "ckpt_path": str(file), "ckpt_sha256": file_sha256(file)}
    except OSError as error:
        raise UserError(f"ckpt_path {given} can't be read: {error.strerror}") from None
