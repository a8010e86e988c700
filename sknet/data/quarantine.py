"""How many samples may be left out before a stage would rather fail."""

from collections.abc import Sequence

from sknet.errors import UserError
from sknet.records import QuarantinedSample

MAX_QUARANTINE = 0.001


def refuse_too_many(quarantined: Sequence[QuarantinedSample], total: int, max_share: float) -> None:
    """Raises UserError if more than a share of all samples can't be used."""
    if len(quarantined) > total * max_share:
        first = min(quarantined, key=lambda sample: sample.key)
        raise UserError(
            f"{len(quarantined)} of {total} samples ({len(quarantined) / total:.2%}) can't be "
            f"used, more than {max_share:.2%}; the first is {first.key}: {first.reason}"
        )
