"""How long the rest of a training will take."""

from collections import deque

WINDOW = 50
"""Number of the last steps from which the present speed is told."""


class Pace:
    """How long the rest of a training will take, once that can be known.

    The first step compiles, so that it tells nothing. What comes between two epochs, such as the
    evaluation, is known from the second epoch on. Nothing is known before LEAST_SECONDS of steps.
    """

    LEAST_SECONDS = 2.0

    def __init__(self, total_steps: int, steps_per_epoch: int) -> None:
        self._total_steps, self._steps_per_epoch = total_steps, steps_per_epoch
        self._last: float | None = None
        self._steps: deque[float] = deque(maxlen=WINDOW)
        self._measured = 0.0
        self._pauses: list[float] = []
        self._in_pause = False
        self._has_pauses = steps_per_epoch > 1

    def step_ends(self, now: float) -> None:
        """Take the time of the monotonic clock at which a step was done."""
        if self._last is not None and not self._in_pause:
            self._steps.append(now - self._last)
            self._measured += now - self._last
        self._last, self._in_pause = now, False

    def epoch_begins(self, now: float) -> None:
        """Take the time at which the first step of an epoch begins."""
        if not self._has_pauses:
            return  # every step is followed by one, which counts as a part of it
        if self._last is not None:
            self._pauses.append(now - self._last)
        self._in_pause = True

    def seconds_left_in_epoch(self, step: int) -> float | None:
        """Return the seconds of the steps that are left in the epoch; None: unknown."""
        if self._measured < self.LEAST_SECONDS:
            return None
        return -step % self._steps_per_epoch * self._per_step

    def seconds_left(self, step: int) -> float | None:
        """Return the seconds that are left after so many steps; None: they can't be known yet."""
        if self._measured < self.LEAST_SECONDS:
            return None
        left = self._total_steps - step
        # The pause after the last epoch included: it is evaluated, too.
        pauses = -(-left // self._steps_per_epoch) if self._has_pauses else 0
        if pauses and not self._pauses:
            return None
        pause = sum(self._pauses) / len(self._pauses) if self._pauses else 0.0
        return left * self._per_step + pauses * pause

    @property
    def _per_step(self) -> float:
        return sum(self._steps) / len(self._steps)
