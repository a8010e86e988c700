"""How long one request may take, and in which portions large objects travel."""

from dataclasses import dataclass

BUDGET_SECONDS = 120.0
"""For one call, with all of its attempts. Long enough for a server that starts anew."""
SLOWEST_TRANSFER = 1 << 20
"""Bytes per second that a transfer's budget allows for, beside BUDGET_SECONDS."""


@dataclass(frozen=True, slots=True)
class Limits:
    """botocore's own timeouts never end an answer that drips."""

    attempt_seconds: float = 20
    slowest_attempt: int = 1 << 19
    """Bytes per second: an attempt may take its size by this longer."""
    part_bytes: int = 64 << 20
    """Larger objects travel in parts of this size."""
    copied_bytes: int = 1 << 30
    """Larger objects are copied in parts of this size; S3 refuses more than 5 GiB at once."""
    threads: int = 4

    def attempt(self, size: int) -> float:
        """Seconds for a request that moves so many bytes."""
        return self.attempt_seconds + size / self.slowest_attempt


DEFAULT_LIMITS = Limits()
