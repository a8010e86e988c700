"""SKNet on MindSpore: recipes, exact data order, resumable training, evaluation, reports.

This package knows no orchestrator and no cloud. Importing it doesn't import MindSpore; `recipe`,
`records`, `judgement` and `report` never do, for machines that only register or read runs.
"""

import sys

from infra.base.interrupts import handle_while_importing

if sys.argv[0] == "-m":  # Python is about to import a command
    handle_while_importing()
