"""The command `sknet`: the commands of the project under one name.

A command is imported when it is called, so that the list of commands is shown at once. Its options
are those of its module; none is declared here.
"""

import sys
from importlib.metadata import version

from cyclopts import App

from infra.base.commands import new_app, start

COMMANDS = {
    "run": ("flows.train_sknet", "Train, validate, promote and report in one workflow."),
    "train": ("sknet.train", "Train a recipe on images or shards."),
    "validate": ("sknet.validate", "Evaluate a checkpoint on the validation split."),
    "convert": ("sknet.convert", "Convert images into shards."),
    "data": ("sknet.data.__main__", "Write a page that shows a data set."),
    "report": ("flows.report", "Write the report over all runs of a store."),
    "revalidate": ("flows.revalidate", "Check the promoted checkpoint again."),
    "doctor": ("infra.doctor.__main__", "Check whether this machine can train."),
}
"""Name → module, and what the list of commands says of it."""


def console() -> App:
    """Return the command."""
    app = new_app(
        "sknet",
        help="Train, evaluate and promote Selective Kernel Networks on MindSpore.",
        help_epilogue="Example: sknet run --recipe skresnet18_digits --data digits",
        version=lambda: f"sknet {version('sknet')}",
        version_flags=("--version",),
    )
    for name, (module, said) in COMMANDS.items():
        app.command(f"{module}:command", name=name, help=said)
    app.command(
        "infra.artifacts.__main__:app",
        name="store",
        help="Look into an artifact store and maintain it.",
    )
    app.register_install_completion_command(name="--install-completion")
    return app


def main() -> int:
    """Run the command that the words of this process name."""
    return start(console())


if __name__ == "__main__":
    sys.exit(main())
