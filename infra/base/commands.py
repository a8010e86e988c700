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
import os
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, cast, get_origin, get_type_hints

from cyclopts import App, Parameter, Token
from cyclopts.argument import Argument, ArgumentCollection
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from cyclopts.help import DefaultFormatter, HelpPanel

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
    """Return what lets a parser of `infra.base.options` read each word of an option."""

    def convert(hint: object, words: Sequence[Token]) -> object:
        try:
            values = tuple(parse(word.value) for word in words)
            return values if get_origin(hint) is tuple else values[-1]
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from None

    return Parameter(converter=convert, n_tokens=1)


Flag = Annotated[bool, Parameter(show_default=False)]
"""An option without a value."""

STORE = Parameter(show_default="SKNET_STORE, or artifacts")
"""The option `--store` of commands that have a default store."""

Texts = Annotated[tuple[str, ...], Parameter(show_default=False)]
"""An option that may be repeated."""


@dataclass(frozen=True, kw_only=True)
class ConsoleOptions:
    """What a command shows of its work."""

    quiet: Flag = False
    """Show no progress: results, warnings and errors alone."""
    verbose: Flag = False
    """Show progress as lines, also in a terminal, and every line of the log."""


EVERYWHERE = ("--device-target", "--quiet", "--verbose")
"""Options of many commands, which come last in the help of each."""


class RequiredFirst(DefaultFormatter):
    """Shows what must be given first, and last the options that many commands have."""

    def __call__(self, console: Any, options: Any, panel: HelpPanel) -> None:
        """Show a panel of the help."""
        panel.entries.sort(
            key=lambda entry: (not entry.required, not {*EVERYWHERE}.isdisjoint(entry.names))
        )
        super().__call__(console, options, panel)


def new_app(name: str, **settings: Any) -> App:
    """Return a command, or a group of commands, with the settings of all commands here."""
    app = App(
        name=name,
        default_parameter=DEFAULTS,
        help_formatter=RequiredFirst(),
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


def as_command(run: Callable[..., int], body: Callable[..., object]) -> Callable[..., int]:
    """Give a function the name, the help and the options, if any, of the one that it calls."""
    run.__name__, run.__doc__ = body.__name__, body.__doc__
    hints = get_type_hints(body)
    parameters = []
    if options := hints.get("options"):
        has_defaults = all(field.default is not MISSING for field in fields(options))
        parameters = [
            inspect.Parameter(
                "options",
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                annotation=Annotated[options, OPTIONS],
                default=options() if has_defaults else inspect.Parameter.empty,
            )
        ]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__dict__["__signature__"] = inspect.Signature(parameters, return_annotation=int)
    return run


def start(app: App, words: Sequence[str] | None = None) -> int:
    """Run a command with the words of a command line, and return its exit code.

    A wrong option ends it with one line and exit code 2, before any work, and so does wrong input
    that the command itself finds.

    Args:
        app: The command, or a group of commands.
        words: The words after its name; None: this process's.
    """
    try:
        function, bound = _bound(app, words)
        code = function(*bound.args, **bound.kwargs) or ExitCode.DONE
        sys.stdout.flush()  # here an error of it can still be told
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.USER_ERROR
    except BrokenPipeError:
        if not _is_output_closed():
            raise
        return ExitCode.FAILED
    return code


def _is_output_closed() -> bool:
    """Tell whether nobody reads what this process prints any more, as in `sknet … | head`."""
    output = sys.stdout.fileno()
    poll = select.poll()
    poll.register(output, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    # What is left in the buffer would fail again as Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


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
    _, path, options = app.parse_commands(given)
    for called in path:
        if called.default_command and not called.name[0].startswith("-"):
            called.help = None  # its docstring, not the line of a list of commands
    try:
        function, bound, _ = app.parse_args(given, exit_on_error=False, print_error=False)
    except MissingArgumentError as error:
        # What is missing may have been misspelled.
        raise UserError(_unknown_option(path[-1], options) or _explained(error)) from None
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
            is_word = argument.index is not None  # it needs no name before it
            name = argument.name.lstrip("-").upper() if is_word else argument.name
            return f"{name} is missing: --help lists all options"
        case (
            UnusedCliTokensError(unused_tokens=[word, *_])
            | UnknownCommandError(unused_tokens=[word, *_])
        ):
            # The library's own message would import all commands.
            if known := [name for name in error.app or () if not name.startswith("-")]:
                return f"no command {word!r}{_nearest(word, known)}: expected {', '.join(known)}"
            return f"{word!r} is not understood here: --help lists all options"
        case UnknownOptionError(token=token, argument_collection=arguments):
            return _no_option(token.keyword or token.value, arguments)
    return f"{' '.join(str(error).split()).rstrip('.')}: --help lists all options"


def _unknown_option(called: App, words: Sequence[str]) -> str:
    """Return what is wrong with the first option that a command doesn't have; empty if none is."""
    arguments = called.assemble_argument_collection()
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--"):
            try:
                arguments.match(option)
            except ValueError:
                return _no_option(option, arguments)
    return ""


def _no_option(word: str, arguments: ArgumentCollection) -> str:
    known = [name for each in arguments if each.show for name in each.names]
    return f"no option {word}{_nearest(word, known)}: --help lists all options"


def _nearest(word: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(word, known, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""
