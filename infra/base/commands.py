"""Commands whose options are the fields of a dataclass, declared once.

The field's name is the option's (`--data-dir` and `--data_dir` are the same), its type says what is
accepted, its docstring is the help, and its default is shown there. A command is a function of one
such dataclass that returns an exit code; its docstring is the help of the command:

    def command(options: Annotated[Options, OPTIONS]) -> int:
        \"\"\"Train a recipe.\"\"\"

    sys.exit(start(app_of(command, "python -m sknet.train")))

If every option has a default, the parameter needs one too: an instance of the dataclass.
"""

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, cast

from cyclopts import App, Parameter, Token
from cyclopts.argument import Argument
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from infra.base.outcomes import ExitCode, UserError

T = TypeVar("T")

OPTIONS = Parameter(name="*")
"""Makes each field of a command's dataclass an option of its own."""

HIDDEN = Parameter(show=False)
"""Leaves an option out of the help: launchers give it, not people."""

DEFAULTS = Parameter(
    negative=(),  # no --no-full beside --full
    allow_repeating=True,  # the last one counts, as everywhere
)


def parsed_by(parse: Callable[[str], object]) -> Parameter:
    """Return what lets a parser of `infra.base.options` read an option's one word."""

    def convert(_type: object, words: Sequence[Token]) -> object:
        try:
            return parse(words[0].value)
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from None

    return Parameter(converter=convert, n_tokens=1)


Flag = Annotated[bool, Parameter(show_default=False)]
"""An option without a value."""

Texts = Annotated[tuple[str, ...], Parameter(show_default=False)]
"""An option that may be repeated."""


def new_app(name: str, **settings: Any) -> App:
    """Return a command, or a group of commands, with the settings of all commands here."""
    app = App(
        name=name,
        default_parameter=DEFAULTS,
        help_format="markdown",
        version_flags=settings.pop("version_flags", ()),
        result_action="return_value",
        **settings,
    )
    app["--help"].show = False
    return app


def app_of(command: Callable[..., int], name: str) -> App:
    """Return the command of a function, under the name that people type for it."""
    app = new_app(name)
    app.default(command)
    return app


def start(app: App, words: Sequence[str] | None = None) -> int:
    """Run a command with the words of a command line, and return its exit code.

    A wrong option ends it with one line and exit code 2, before any work.

    Args:
        app: The command, or a group of commands.
        words: The words after its name; None: this process's.
    """
    try:
        function, bound = _bound(app, words)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.USER_ERROR
    return function(*bound.args, **bound.kwargs) or ExitCode.DONE


def parse(command: Callable[[T], int], words: Sequence[str] | None = None) -> T:
    """Return the options of a command without running it.

    Raises:
        UserError: An option is wrong.
    """
    _, bound = _bound(app_of(command, "command"), words)
    (options,) = bound.args
    return cast("T", options)


def _bound(
    app: App, words: Sequence[str] | None
) -> tuple[Callable[..., int | None], inspect.BoundArguments]:
    given = sys.argv[1:] if words is None else words
    try:
        function, bound, _ = app.parse_args(given, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise UserError(_explained(error)) from None
    bound.apply_defaults()
    return function, bound


def _explained(error: CycloptsError) -> str:
    """Return what is wrong with the words of a command line, in one line."""
    match error:
        case CoercionError(msg=str() as reason) if error.argument:
            return f"{error.argument.name}: {reason}"
        case CoercionError(argument=Argument() as argument, token=Token() as token) if (
            choices := argument.get_choices()
        ):
            return f"{argument.name} is {token.value!r}: expected {' or '.join(choices)}"
        case MissingArgumentError(argument=Argument() as argument):
            if given := error.keyword:
                return f"{given} needs a value: --help shows which"
            return f"{argument.name} is missing: --help lists all options"
        case UnusedCliTokensError(unused_tokens=[word, *_]):
            return f"{word!r} is not understood here: --help lists all options"
        case UnknownCommandError(unused_tokens=[word, *_], app=App() as app):
            # The library's own message would import all commands.
            known = [name for name in app if not name.startswith("-")]
            return f"no command {word!r}{_nearest(word, known)}: expected {', '.join(known)}"
        case UnknownOptionError(token=token, argument_collection=arguments):
            word = token.keyword or token.value
            known = [name for each in arguments if each.show for name in each.names]
            return f"no option {word}{_nearest(word, known)}: --help lists all options"
    return f"{' '.join(str(error).split()).rstrip('.')}: --help lists all options"


def _nearest(word: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(word, known, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""
