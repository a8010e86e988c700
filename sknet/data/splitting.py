"""Own splits: which training images are held out, so that copies and groups stay on one side.

An image belongs to its copies and to the images that groups.csv puts together with it. Groups that
share an image are one group, which goes into one split as a whole; only if a class would have too
few groups, its images that merely look alike are divided. The groups are in the order of a
seeded hash of their names. `val` is taken from the beginning of this order and `test` from its end,
so that changing one fraction leaves the other split as it was.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from sknet.data.sources.source import SPLITS, TEST, Sample, SplitRule
from sknet.data.sources.split_rule import normalised
from sknet.errors import UserError

TRAIN, VAL = SPLITS

SMALLEST_GAIN = 1e-9
"""A smaller gain is a rounding error of zero."""

MAX_LINES = 10
"""Most classes that are told to be split unevenly."""

Group = tuple[int, ...]
"""Positions of the samples that stay in one split."""


def draw_splits(
    samples: Sequence[Sample],
    classes: Sequence[str],
    rule: SplitRule,
    *,
    copies: Iterable[Sequence[str]] = (),
    groups: Mapping[str, str] | None = None,
) -> list[Sample]:
    """Move training samples into the splits that the rule draws.

    Args:
        samples: All samples of the source.
        classes: Names of the classes by label.
        rule: Which splits to draw.
        copies: Keys of the samples that show one image, for each such image.
        groups: Group of the samples by their paths, empty for a group of its own, as a sample is
            that has none; None if there is no group file.

    Returns:
        All samples, sorted by split and key.

    Raises:
        UserError: A class has too few groups.
    """
    names = [_group_of(sample, groups or {}) or sample.key for sample in samples]
    copies = list(copies)
    # Dividing one class may be enough for others. If it is not, all of them are divided at once,
    # because each try groups all samples.
    max_labels: int | None = 1
    while True:
        in_order = _groups(names, [sample.key for sample in samples], copies, rule.seed)
        try:
            drawn = _drawn(samples, in_order, rule)
            break
        except _TooFewGroupsError as error:
            # Images that only look alike are no reason to refuse a source: they may be divided.
            divided = _near_copies_divided(samples, copies, {*error.labels[:max_labels]})
            if divided == copies:
                splits = ", ".join((TRAIN, *rule.fractions))
                raise UserError(
                    f"class {classes[error.labels[0]]!r} can't be in each of {splits}: its "
                    f"{error.num_images} training images form {error.num_groups} groups of copies, "
                    "or of groups.csv, and no group is divided; add images that belong to no other"
                ) from None
            copies, max_labels = divided, None
    moved = (
        replace(sample, split=drawn[position]) if position in drawn else sample
        for position, sample in enumerate(samples)
    )
    return sorted(moved, key=lambda sample: (sample.split, sample.key))


def uneven_splits(samples: Iterable[Sample], classes: Sequence[str], rule: SplitRule) -> list[str]:
    """Return a line for each class whose fraction in a drawn split is far from the one asked for.

    Args:
        samples: All samples, after splits were drawn.
        classes: Names of the classes by label.
        rule: Which splits were drawn.
    """
    lines = []
    counts = Counter((sample.split, sample.label) for sample in samples)
    for split, fraction in rule.fractions.items():
        for label, name in enumerate(classes):
            total = sum(counts[each, label] for each in (TRAIN, *rule.fractions))
            found, wanted = counts[split, label], max(1, round(total * fraction))
            if not wanted / 2 <= found <= wanted * 2:
                lines.append(
                    f"{split} has {found} of the {total} images of {name!r} instead of {wanted}, "
                    "as copies and groups are not divided"
                )
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"and {len(lines) - MAX_LINES} more"]
    return lines


def ungrouped(samples: Iterable[Sample], groups: Mapping[str, str]) -> str | None:
    """Check that the group file has a line for each sample, before splits are drawn.

    Returns:
        A line if it lacks only samples of the sealed test split that the source has, whose groups
        may be unknown to those who use it.

    Raises:
        UserError: It lacks other samples.
    """
    counts: Counter[bool] = Counter()
    absent: dict[bool, list[str]] = {False: [], True: []}
    for sample in samples:
        is_sealed = sample.split == TEST
        counts[is_sealed] += 1
        if _group_of(sample, groups) is None:
            absent[is_sealed].append(sample.key)
    if keys := absent[False]:
        raise UserError(
            f"groups.csv has no line for {len(keys)} of {counts[False]} images, such as "
            f"{keys[0]}: expected path and group of each, or an empty group for an image of its "
            "own"
        )
    if keys := absent[True]:
        return (
            f"groups.csv has no line for {len(keys)} of {counts[True]} images of {TEST}, such as "
            f"{keys[0]}: whether their groups are in other splits, too, is not known"
        )
    return None


def divided_groups(samples: Iterable[Sample], groups: Mapping[str, str]) -> str | None:
    """Return a line if groups of the group file are in several splits of the source."""
    splits_of: dict[str, set[str]] = {}
    for sample in samples:
        if group := _group_of(sample, groups):
            splits_of.setdefault(group, set()).add(sample.split)
    divided = [group for group, splits in splits_of.items() if len(splits) > 1]
    if not divided:
        return None
    splits = " and ".join(sorted(splits_of[divided[0]]))
    return (
        f"groups of groups.csv in several splits: {len(divided)}, such as {divided[0]!r}, which is "
        f"in {splits}"
    )


class _TooFewGroupsError(Exception):
    """Classes have too few groups for all splits."""

    def __init__(self, labels: Sequence[int], num_images: int, num_groups: int) -> None:
        """Remember the labels of the classes, and the numbers of the first one."""
        super().__init__(labels, num_images, num_groups)
        self.labels, self.num_images, self.num_groups = labels, num_images, num_groups


def _drawn(samples: Sequence[Sample], groups: Sequence[Group], rule: SplitRule) -> dict[int, str]:
    """Return the split of each sample that is moved, by its position.

    Raises:
        _TooFewGroupsError: Classes can't be in each split.
    """
    labels = [sample.label for sample in samples]
    # A group with a sample that the source put into another split can't be moved.
    free = [group for group in groups if all(samples[each].split == TRAIN for each in group)]
    of_train = Counter(sample.label for sample in samples if sample.split == TRAIN)
    num_groups = Counter(label for group in free for label in {labels[each] for each in group})
    num_left = num_groups.copy()
    drawn: dict[int, str] = {}
    for split in (split for split in (TEST, VAL) if split in rule.fractions):
        fraction = rule.fractions[split]
        drawing = _Drawing(
            labels,
            {label: max(1, round(count * fraction)) for label, count in of_train.items()},
            num_left,
            num_kept=2 if split == TEST and VAL in rule.fractions else 1,
        )
        drawing.take_from(free if split == VAL else free[::-1])
        if labels_missing := drawing.missing:
            first = labels_missing[0]
            raise _TooFewGroupsError(labels_missing, of_train[first], num_groups[first])
        drawn |= {position: split for group in drawing.taken for position in group}
        free = [group for group in free if group[0] not in drawn]
    return drawn


def _near_copies_divided(
    samples: Sequence[Sample], copies: Sequence[Sequence[str]], labels: Collection[int]
) -> list[Sequence[str]]:
    """Return the copies, those with a sample of some classes divided into groups of equal bytes."""
    by_key = {sample.key: sample for sample in samples}
    result: list[Sequence[str]] = []
    for keys in copies:
        if all(by_key[key].label not in labels for key in keys):
            result.append(keys)
            continue
        equal: dict[str, list[str]] = {}
        for key in keys:
            equal.setdefault(by_key[key].sha256, []).append(key)
        result += [same for same in equal.values() if len(same) > 1]
    return result


class _Drawing:
    """The groups that one split takes.

    A group is taken if that lessens the sum over the classes of (number - target)^2 / target. For
    groups of one image, these are the first ones of each class.
    """

    def __init__(
        self,
        labels: Sequence[int],
        targets: Mapping[int, int],
        num_left: Counter[int],
        *,
        num_kept: int,
    ) -> None:
        """Begin with no groups.

        Args:
            labels: Label of each sample.
            targets: Number of samples to take, by label.
            num_left: Number of groups in train, by label; updated.
            num_kept: Groups of each class that stay in train, at least.
        """
        self.taken: list[Group] = []
        self._labels = labels
        self._targets = targets
        self._wanted = dict(targets)
        self._num_left = num_left
        self._num_kept = num_kept

    @property
    def missing(self) -> list[int]:
        """Labels of which no sample was taken."""
        return [label for label in self._targets if self._is_missing(label)]

    def take_from(self, groups: Sequence[Group]) -> None:
        """Take those of the groups that bring the split nearer to its targets, in their order.

        Then take the best group of each class that has none yet, because its groups are too large.
        """
        for group in groups:
            if self._gain(group) > SMALLEST_GAIN:
                self._take(group)
        holding: dict[int, list[Group]] = {label: [] for label in self.missing}
        for group in groups if holding else ():
            for label in holding.keys() & self._counts(group).keys():
                holding[label].append(group)
        for label in filter(self._is_missing, holding):
            best = max(holding[label], key=self._gain, default=None)
            if best is not None and self._gain(best) > -math.inf:
                self._take(best)

    def _is_missing(self, label: int) -> bool:
        return self._wanted[label] == self._targets[label]

    def _gain(self, group: Group) -> float:
        """Return by how much the sum would be less; -inf if train needs the group."""
        counts = self._counts(group)
        if any(self._num_left[label] <= self._num_kept for label in counts):
            return -math.inf
        return sum(
            (self._wanted[label] ** 2 - (self._wanted[label] - count) ** 2) / self._targets[label]
            for label, count in counts.items()
        )

    def _take(self, group: Group) -> None:
        self.taken.append(group)
        for label, count in self._counts(group).items():
            self._wanted[label] -= count
            self._num_left[label] -= 1

    def _counts(self, group: Group) -> Counter[int]:
        return Counter(self._labels[position] for position in group)


def _group_of(sample: Sample, groups: Mapping[str, str]) -> str | None:
    # A key has the usual names of splits and classes, whatever the folders are called.
    return groups.get(normalised(sample.key), groups.get(normalised(sample.file)))


def _groups(
    names: Sequence[str], keys: Sequence[str], copies: Iterable[Sequence[str]], seed: int
) -> list[Group]:
    """Return the groups of samples in the order of the hashes of their names.

    Args:
        names: Name of each sample's group, or its key.
        keys: Key of each sample.
        copies: Keys of samples that are in one group whatever their names are.
        seed: The seed of the hashes.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    position_of = {key: position for position, key in enumerate(keys)}
    first_of: dict[str, int] = {}
    links = [(first_of.setdefault(name, position), position) for position, name in enumerate(names)]
    links += [(position_of[first], position_of[key]) for first, *others in copies for key in others]
    ends = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links), bool), ends), shape=(len(keys), len(keys)))
    members: dict[int, list[int]] = {}
    for position, number in enumerate(connected_components(graph, directed=False)[1].tolist()):
        members.setdefault(number, []).append(position)

    def rank(group: Group) -> bytes:
        name = min(names[position] for position in group)
        return hashlib.sha256(b"%d/" % seed + name.encode("utf-8", "surrogateescape")).digest()

    return sorted(map(tuple, members.values()), key=rank)
