"""The progress file, in which a program reports to the task that supervises it.

The program replaces the file as often as it prints a line about its progress, just before the line.
"""

from contextlib import suppress
from pathlib import Path

from infra.base.files import replace_file


def write_progress(path: Path, fraction: float) -> None:
    """Write how much of the work is done, as a fraction from 0 to 1.

    A file that can't be written is left out: nothing fails because its progress can't be shown.
    """
    with suppress(OSError):
        replace_file(path, f"{fraction}".encode())


def read_progress(path: Path) -> float | None:
    """Return the fraction in a progress file; None if there is none yet, or it can't be read."""
    try:
        return float(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
