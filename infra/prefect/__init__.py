"""Prefect, adapted: command-line plugin, work pools, settings."""
