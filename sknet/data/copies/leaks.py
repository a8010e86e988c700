"""What copies mean for a data set: which samples leak from one split into another."""

from collections.abc import Iterable, Sequence
from typing import Literal

from sknet.data.sources.source import ALL_SPLITS, Sample
from sknet.errors import UserError
from sknet.records import CopyGroup, Dataset, QuarantinedSample

OnLeak = Literal["warn", "refuse", "drop"]
ON_LEAK: OnLeak = "warn"
"""Default of what happens if a sample has a copy in another split."""

MAX_LEAKING = 500_000
"""Most samples with copies in other splits that a data set's record lists."""
MAX_OTHERS = 100_000
"""Most samples that it lists of groups within one split and class."""

NUM_SHOWN = 10
"""Groups that a log shows."""
MAX_ROWS = 100
"""Groups that a table on a page shows."""

Keys = Sequence[str]
"""Keys of the samples that show one image."""


def copy_groups(samples: Iterable[Sample], copies: Iterable[Keys]) -> tuple[CopyGroup, ...]:
    """Return the record of the copies among some samples.

    Leaking groups come first, and of these as of the others, those with several labels. Of the
    groups that are neither, at most MAX_OTHERS samples are listed.

    Args:
        samples: The samples of the data set.
        copies: Keys of samples that show one image; samples that are not in the data set count for
            nothing.

    Raises:
        UserError: More than MAX_LEAKING samples leak.
    """
    by_key = {sample.key: sample for sample in samples}
    groups = [
        _group([by_key[key] for key in keys])
        for each in copies
        if len(keys := [key for key in each if key in by_key]) > 1
    ]
    num_leaking = sum(len(group.keys) for group in groups if group.leaks)
    if num_leaking > MAX_LEAKING:
        raise UserError(
            f"{num_leaking} samples have copies in other splits, more than the {MAX_LEAKING} that "
            "a data set's record lists: split the images anew, so that copies stay together"
        )
    groups.sort(key=lambda group: (not group.leaks, not group.contradicts, group.keys))
    listed, num_others = [], 0
    for group in groups:
        if not (group.leaks or group.contradicts):
            num_others += len(group.keys)
            if num_others > MAX_OTHERS:
                break
        listed.append(group)
    return tuple(listed)


def _group(samples: list[Sample]) -> CopyGroup:
    samples.sort(key=lambda sample: (sample.split, sample.key))
    return CopyGroup(
        keys=tuple(sample.key for sample in samples),
        splits=tuple(sample.split for sample in samples),
        labels=tuple(sample.label for sample in samples),
        exact=len({sample.sha256 for sample in samples}) == 1,
    )


def without_leaks(
    samples: Sequence[Sample], copies: Iterable[Keys]
) -> tuple[list[Sample], tuple[QuarantinedSample, ...]]:
    """Leave out the samples of which a copy is in a split that matters more.

    A test split keeps all its samples, so that its numbers stay comparable; a validation split
    loses what is in the test split, and training what is in either.

    Returns:
        The samples that stay, and those that don't, with the reason.
    """
    by_key = {sample.key: sample for sample in samples}
    dropped: dict[str, QuarantinedSample] = {}
    for keys in copies:
        group = [by_key[key] for key in keys if key in by_key]
        kept = max(group, key=lambda sample: ALL_SPLITS.index(sample.split), default=None)
        for sample in group:
            if kept is not None and sample.split != kept.split:
                reason = f"a copy of {kept.key}, which is in {kept.split}"
                dropped[sample.key] = QuarantinedSample(
                    split=sample.split, key=sample.key, reason=reason
                )
    return (
        [sample for sample in samples if sample.key not in dropped],
        tuple(dropped[key] for key in sorted(dropped)),
    )


def refuse_leaks(groups: Iterable[CopyGroup]) -> None:
    """Check that no sample has a copy in another split.

    Raises:
        UserError: One has.
    """
    leaking = [group for group in groups if group.leaks]
    if leaking:
        num_samples = sum(len(group.keys) for group in leaking)
        raise UserError(
            f"{num_samples} samples show an image that is in another split, too, such as "
            f"{described(leaking[0])}: leave one of them out, or choose --on-leak drop or warn"
        )


def refuse_recorded_leaks(dataset: Dataset, on_leak: OnLeak, what: str) -> None:
    """Check that a data set, which was staged before, is as `on_leak` demands.

    Args:
        dataset: The data set.
        on_leak: What was to happen to copies in other splits.
        what: What holds the samples, for the message.

    Raises:
        UserError: There are copies in several splits, and they are to be refused or left out.
    """
    if on_leak == "refuse":
        refuse_leaks(dataset.copies)
    if on_leak == "drop" and any(group.leaks for group in dataset.copies):
        raise UserError(
            f"{what} hold copies in several splits: convert the images again with --on-leak drop"
        )


def described(group: CopyGroup, classes: Sequence[str] = ()) -> str:
    """Return the keys of a group in one line, at most three of each split.

    Args:
        group: The group.
        classes: Names of the classes by label, if they are to be told.
    """
    parts = []
    for split in dict.fromkeys(group.splits):
        of_split = [
            f"{key} ({classes[label]})" if classes and group.contradicts else key
            for key, label, its_split in zip(group.keys, group.labels, group.splits, strict=True)
            if its_split == split
        ]
        more = f" and {len(of_split) - 3} more" if len(of_split) > 3 else ""
        parts.append(", ".join(of_split[:3]) + more)
    return " = ".join(parts) if group.leaks else parts[0]


def copy_warnings(dataset: Dataset, *, alike: bool = False) -> list[str]:
    """Return lines that tell a person of copies across splits and under several labels.

    Args:
        dataset: The data set.
        alike: Whether its images look too much alike for near copies to be found.
    """
    lines = []
    leaking = [group for group in dataset.copies if group.leaks]
    if leaking:
        counts = ", ".join(
            f"{count} of {size} in {split}"
            for split, size in dataset.splits.items()
            if (count := len(dataset.leaked(split)))
        )
        lines.append(f"images in several splits: {counts}; --on-leak drop leaves copies out")
        lines += _shown(leaking, dataset.classes)
    contradicting = [group for group in dataset.copies if group.contradicts]
    if contradicting:
        lines.append(f"images under several labels: {len(contradicting)}")
        lines += _shown(contradicting, dataset.classes)
    if dataset.dropped:
        lines.append(f"left out by --on-leak drop: {len(dataset.dropped)}")
        lines += [f"  {each.key}: {each.reason}" for each in dataset.dropped[:NUM_SHOWN]]
        lines += _more(len(dataset.dropped))
    if alike:
        lines.append("more than half of the images look alike: only equal files count as copies")
    return lines


def table_rows(dataset: Dataset) -> list[dict[str, str]]:
    """Return rows that list the groups across splits or under several labels, at most MAX_ROWS."""
    groups = [group for group in dataset.copies if group.leaks or group.contradicts]
    return [
        {
            "images": described(group),
            "splits": ", ".join(dict.fromkeys(group.splits)),
            "classes": ", ".join(dataset.classes[label] for label in dict.fromkeys(group.labels)),
            "equal": "yes" if group.exact else "nearly",
        }
        for group in groups[:MAX_ROWS]
    ]


def _shown(groups: Sequence[CopyGroup], classes: Sequence[str]) -> list[str]:
    shown = [
        f"  {'equal' if group.exact else 'near copies'}: {described(group, classes)}"
        for group in groups[:NUM_SHOWN]
    ]
    return shown + _more(len(groups))


def _more(count: int) -> list[str]:
    return [f"  and {count - NUM_SHOWN} more, in dataset.json"] if count > NUM_SHOWN else []
