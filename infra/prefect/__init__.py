"""Prefect, adapted: the command-line plugin."""
