"""Exported files: what they are said to be, and whether they predict what was evaluated."""
