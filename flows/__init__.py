"""The flows: each body reads like its diagram."""

import sys

from infra.base.interrupts import handle_while_importing

if sys.argv[0] == "-m":  # Python is about to import a command, which takes seconds
    handle_while_importing()
