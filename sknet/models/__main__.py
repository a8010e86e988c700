"""`python -m sknet.models`: the same as `sknet models`, which doesn't import this package."""

import sys

from infra.base.commands import app_of, start
from sknet.sizes import command

if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m sknet.models")))
