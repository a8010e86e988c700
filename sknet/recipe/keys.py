"""The keys of recipes as people read about them: meaning, values and default of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sknet.recipe.choices import Choices
from sknet.recipe.recipe import FILE_DEFAULTS, Recipe

_WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}


@dataclass(frozen=True)
class Key:
    """A key of a recipe."""

    name: str
    topic: type[Choices]
    """The group of choices that has the key; its docstring says what they are about."""
    text: str
    """What the key means, in one line."""
    values: str
    """Which values it takes."""
    default: Any
    """Its value in a recipe file that doesn't have it; `PydanticUndefined` if every file must."""

    @property
    def is_required(self) -> bool:
        """Tell whether every recipe must have the key."""
        return self.default is PydanticUndefined

    def is_default_in(self, recipe: Recipe) -> bool:
        """Tell whether a recipe has the default of the key."""
        return bool(getattr(recipe, self.name) == self.default)


def keys() -> list[Key]:
    """Return the keys of recipes, by topic, in the order in which recipes are written."""
    fields = Recipe.model_fields
    topics = [
        each for each in Recipe.__mro__ if issubclass(each, Choices) and each.__base__ is Choices
    ]
    return [
        Key(
            name=name,
            topic=topic,
            text=" ".join(str(fields[name].description).split()),
            values=_values(fields[name].annotation, fields[name].metadata),
            default=FILE_DEFAULTS.get(name, fields[name].default),
        )
        for topic in reversed(topics)
        for name in topic.model_fields
    ]


def resolved(recipe: Recipe) -> Iterator[str]:
    """Yield a recipe as lines of YAML: every key by topic, with defaults marked."""
    topic = None
    for key in keys():
        if key.topic is not topic:
            topic = key.topic
            yield f"\n# {topic.__doc__}"
        mark = "  # default" if key.is_default_in(recipe) else ""
        yield f"{key.name}: {as_yaml(getattr(recipe, key.name))}{mark}"


def as_yaml(value: Any) -> str:
    """Return the value of a key as a recipe file has it, in one line."""
    plain = [*value] if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _values(annotation: Any, metadata: Sequence[object] = ()) -> str:
    """Return in words which values a type takes that has such limits."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return ", or ".join(_values(each) for each in arguments)
    if origin is Literal:
        return " or ".join(str(each) for each in arguments)
    if origin is tuple:
        number = (
            "a list of any length" if arguments[-1] is Ellipsis else f"{len(arguments)} numbers"
        )
        return f"{number}, each {_values(arguments[0])}"
    return " ".join(filter(None, (_WORDS[annotation], _limits(metadata))))


def _limits(metadata: Sequence[object]) -> str:
    """Return the narrowest limits in words; empty if there are none."""
    low: list[tuple[Any, int, str]] = []
    high: list[tuple[Any, int, str]] = []
    for each in _flat(metadata):
        match each:
            case Ge(ge=limit):
                low.append((limit, 0, "of at least"))
            case Gt(gt=limit):
                low.append((limit, 1, "above"))
            case Lt(lt=limit):
                high.append((limit, 0, "below"))
            case Le(le=limit):
                high.append((limit, 1, "at most"))
    narrowest = sorted(low)[-1:] + sorted(high)[:1]
    return " and ".join(f"{words} {limit}" for limit, _, words in narrowest)


def _flat(metadata: Sequence[object]) -> Iterator[object]:
    for each in metadata:
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)
