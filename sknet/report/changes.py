"""In what two runs differ: choices of the recipe, data, software, layout and machine."""

from collections.abc import Iterator, Mapping
from typing import Literal

from sknet.report.contents import ReportRecord, TrainedRun

BUSY = 0.1
"""Load by others, as a fraction of the processor's cores, from which a machine counts as busy."""


Part = Literal["recipe", "data", "software", "run", "machine"]


class Change(ReportRecord):
    """A property in which two runs differ."""

    part: Part
    name: str
    first: str
    second: str


def changes_between(first: TrainedRun, second: TrainedRun) -> Iterator[Change]:
    """Yield the properties in which two runs differ, those of the recipe first."""
    parts: tuple[tuple[Part, Mapping[str, object], Mapping[str, object]], ...] = (
        ("recipe", first.recipe.all_choices(), second.recipe.all_choices()),
        ("data", _data(first), _data(second)),
        ("software", first.software, second.software),
        ("run", _layout(first), _layout(second)),
        ("machine", _machine(first), _machine(second)),
    )
    for part, of_first, of_second in parts:
        for name in sorted(of_first.keys() | of_second.keys()):
            one, two = str(of_first.get(name, "absent")), str(of_second.get(name, "absent"))
            if one != two:
                yield Change(part=part, name=name, first=one, second=two)


def _data(run: TrainedRun) -> dict[str, object]:
    if run.data is None:
        return {}
    return {
        "source": run.data.source,
        "samples": run.data.digest,
        "shards": run.data.shards,
        "quarantined": len(run.data.quarantined),
        **{f"{split} samples": count for split, count in run.data.splits.items()},
    }


def _layout(run: TrainedRun) -> dict[str, object]:
    return {
        "model": run.model,
        "parameters": run.params,
        "ranks": run.world_size,
        "global batch": run.global_batch_size,
        "device": run.device_target,
        "steps": run.steps,
    }


def _machine(run: TrainedRun) -> dict[str, object]:
    return {
        "machine": run.machine or "unknown",
        "processor": run.processor or "unknown",
        "load by others": load_text(run),
    }


def load_text(run: TrainedRun) -> str:
    """Return how busy other programs kept the machine during the training, in words."""
    if run.load is None:
        return "not recorded"
    return "idle" if run.load < BUSY else f"{100 * run.load:.0f} % of the cores"
