"""Checks whether this machine can train: ``python -m infra.doctor``.

Facts are gathered first, then judged by pure functions. `machine` does both for the installation
and the hardware, `services` for the store and the Prefect server; on Ascend hosts `ascend_tools`
gathers and `ascend` judges. Nothing here imports MindSpore: its version is read from the installed
distribution.
"""
