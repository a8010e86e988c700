"""Images that can't be used: named one by one, and refused if there are too many."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence

from sknet.data.sources.trees import Skipped
from sknet.errors import UserError
from sknet.records import QuarantinedSample

MAX_FRACTION = 0.001
MAX_FILES = 5
DEFAULT_LIMIT = f"{MAX_FRACTION} or {MAX_FILES} images, whichever is more"

MAX_LINES = 1000
"""Most images that are named one by one. The records name all of them."""

MAX_EXAMPLES = 5
"""Most files that are named of those that are no images for one reason."""

Report = Callable[[int, str], object]
"""Takes a level of `logging` and a line for the user."""


def no_report(_level: int, _line: str) -> None:
    """Say nothing; a Report."""


def refuse_too_many(
    quarantined: Sequence[QuarantinedSample], num_samples: int, max_fraction: float | None
) -> None:
    """Check that few enough samples are unusable.

    Args:
        quarantined: The unusable samples.
        num_samples: Number of all samples, usable or not.
        max_fraction: Largest fraction that may be unusable, 0 to 1; None: MAX_FRACTION, or
            MAX_FILES if that is more.

    Raises:
        UserError: There are more.
    """
    fraction = MAX_FRACTION if max_fraction is None else max_fraction
    limit = f"{fraction:.2%}"
    if max_fraction is None and num_samples * fraction < MAX_FILES:
        fraction, limit = MAX_FILES / max(num_samples, 1), f"{MAX_FILES} of them"
    found = len(quarantined) / max(num_samples, 1)
    if found <= fraction:
        return
    first = min(quarantined, key=lambda sample: sample.key)
    raise UserError(
        f"{len(quarantined)} of {num_samples} samples ({found:.2%}) can't be used, more than "
        f"{limit}; the first is {first.key}: {first.reason}; to leave them out, give "
        f"--max-quarantine {math.ceil(found * 1000) / 1000:g}"
    )


def report_quarantined(
    report: Report, stage: str, quarantined: Sequence[QuarantinedSample]
) -> None:
    """Name each sample that a stage leaves out, with the reason."""
    for sample in quarantined[:MAX_LINES]:
        report(logging.WARNING, f"{stage}: left out {sample.key}: {sample.reason}")
    if len(quarantined) > MAX_LINES:
        report(logging.WARNING, f"{stage}: left out {len(quarantined) - MAX_LINES} more")


def ignored_lines(ignored: Sequence[Skipped]) -> Iterator[str]:
    """Yield a line with examples for each reason why files are no images."""
    by_reason: dict[str, list[str]] = {}
    for entry in sorted(ignored, key=lambda entry: entry.name):
        by_reason.setdefault(entry.reason, []).append(entry.name)
    for reason, names in sorted(by_reason.items()):
        more = ", …" if len(names) > MAX_EXAMPLES else ""
        yield f"ignored {len(names)} files ({reason}): {', '.join(names[:MAX_EXAMPLES])}{more}"
