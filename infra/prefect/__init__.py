"""Prefect's settings for this project, a plugin for its command line, and notifications."""
