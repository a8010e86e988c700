"""SKNet on MindSpore: recipes, exact data order, resumable training, evaluation, reports.

This package knows no orchestrator and no cloud. Importing it doesn't import MindSpore; `recipe`,
`records`, `judgement` and `report` never do, for machines that only register or read runs.
"""

from infra.base.interrupts import handle_while_importing

handle_while_importing(__name__)
