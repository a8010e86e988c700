"""SKNet on MindSpore: recipes, exact data order, resumable training, evaluation, reports.

This package knows no orchestrator and no cloud. Importing it doesn't import MindSpore; `recipe`,
`records`, `judgement` and `report` never do, for machines that only register or read runs.
"""
