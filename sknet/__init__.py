"""SKNet on MindSpore: recipes, exact data order, resumable training, evaluation, reports.

This package knows no orchestrator and no cloud, and importing it imports no MindSpore:
``recipe``, ``records`` and ``report`` serve machines that only register or read runs.
"""
