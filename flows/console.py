"""The command `sknet`: the commands of the project under one name.

A command is imported when it is called, so that the list of commands is shown at once. Its options
and its help are those of its module; none is declared here.
"""

import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Literal

from cyclopts import App

from infra.base.commands import OPTIONS, new_app, start
from infra.base.outcomes import ExitCode

COMMANDS = {
    "run": ("flows.train_sknet:command", "Train, validate, promote and report in one workflow."),
    "train": ("sknet.train:command", "Train a recipe on images or shards."),
    "validate": ("sknet.validate:command", "Evaluate a checkpoint on the validation split."),
    "predict": ("sknet.predict:command", "Predict the classes of images."),
    "convert": ("sknet.convert:command", "Convert images into shards."),
    "data": ("sknet.data.__main__:command", "Write a page that shows a data set."),
    "export": ("sknet.export:command", "Export a checkpoint as ONNX or MINDIR."),
    "models": ("sknet.sizes:command", "List the models with their sizes."),
    "recipes": ("sknet.recipe.__main__:app", "List recipes, show one, explain a key."),
    "graph": ("sknet.graph.__main__:command", "Print what a recipe's training compiles to."),
    "report": ("flows.report:command", "Write the report over all runs of a store."),
    "revalidate": ("flows.revalidate:command", "Check the promoted checkpoint again."),
    "passport": ("flows.passport:app", "Make and verify the passport of a checkpoint."),
    "mlflow": ("flows.mlflow_export:command", "Export the runs of a store to MLflow."),
    "store": ("infra.artifacts.__main__:app", "Look into an artifact store and maintain it."),
    "doctor": ("infra.doctor.__main__:command", "Check whether this machine can train."),
    "completion": ("flows.console:completion", "Print a script by which a shell completes words."),
}
"""Name → where the command is, and what the list of commands says of it."""


def console() -> App:
    """Return the command."""
    app = new_app(
        "sknet",
        help="Train, evaluate and promote Selective Kernel Networks on MindSpore.\n\n"
        "Example: `sknet run --recipe skresnet18_digits --data digits`",
        version=lambda: f"sknet {version('sknet')}",
        version_flags=("--version",),
    )
    for position, (name, (command, said)) in enumerate(COMMANDS.items()):
        app.command(command, name=name, help=said, sort_key=position)
    return app


@dataclass(frozen=True)
class Shell:
    """The options of completion."""

    shell: Literal["bash", "zsh", "fish"]
    """The shell for which the script is."""


def completion(options: Annotated[Shell, OPTIONS]) -> int:
    """Print a script by which a shell completes commands and options.

    docs/command.md says where each shell looks for it.

    Example: `sknet completion bash > sknet.bash`
    """
    print(console().generate_completion(prog_name="sknet", shell=options.shell))
    return ExitCode.DONE


def main() -> int:
    """Run the command that the words of this process name."""
    return start(console())


if __name__ == "__main__":
    sys.exit(main())
