"""What the page of a data set shows: its samples, what was measured of them, what is suspect."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from sknet.records import CopyGroup, Dataset, QuarantinedSample

MEASURES = ("width", "height", "brightness", "contrast")
"""What is measured of an image: two sides in pixels, and mean and standard deviation of its grey
values, 0 to 255."""

MEASURES_FILE = "measures.parquet"
"""File of a survey with the measured samples."""

SEALED = "test"
"""The split of which no samples are shown, unless they are suspect."""

MAX_SAMPLES = 36
"""Most samples that stand for a data set in the report of a store."""

MAX_PER_CLASS = 8
"""Most pictures of a class."""

MAX_PICTURES = 1000
"""Most pictures of all classes together. One takes about 4 kB of the page."""

MAX_SUSPECTS = 24
"""Most pictures of one kind of suspect, and most groups of copies of one kind."""

MAX_PER_GROUP = 4
"""Most pictures of one group of copies."""

TINY_SIDE = 32
TINY_FRACTION = 0.25
"""An image is tiny if its shorter side is less than this fraction of the median, or less than half
of the median and of TINY_SIDE pixels."""

ODD_ASPECT = 4.0
"""Ratio of the sides above which a crop of the centre shows little of the image."""

BLANK_CONTRAST = 3.0
"""Contrast of an image that shows nothing. A JPEG of one colour has up to 1."""

DARK, BRIGHT = 10.0, 245.0
"""Mean grey values beyond which an image is nearly black or white."""


@dataclass(frozen=True)
class Suspects:
    """Images that somebody should look at."""

    kind: str
    """Name of the kind, such as `blank`."""
    reason: str
    """What makes an image one of these."""
    rows: pd.DataFrame
    """The samples, the worst first: split, key, label and `found`, what was measured in words."""


@dataclass(frozen=True)
class CopyKind:
    """Groups of copies that are suspect for one reason."""

    name: str
    title: str
    reason: str
    groups: tuple[CopyGroup, ...]
    """The groups, or the first of them."""
    num_groups: int


@dataclass(frozen=True)
class DataContents:
    """Everything that the page of a data set shows."""

    name: str
    """The source or the directory, as the user wrote it."""
    dataset: Dataset
    samples: pd.DataFrame
    """All samples: split, key and label."""
    measured: pd.DataFrame
    """The samples that were decoded: the same columns, `size` of the encoded image in bytes, and
    those of MEASURES."""
    is_complete: bool = True
    """Whether all samples were decoded; otherwise those that were are a random sample."""
    left_out: tuple[QuarantinedSample, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    """Files that are no images, and why."""
    notes: tuple[str, ...] = ()
    """What the folders of the source were taken for."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """Small PNG or JPEG files by key of the sample."""

    @cached_property
    def splits(self) -> list[str]:
        """The splits in the order train, val, test."""
        order = {"train": 0, "val": 1, SEALED: 2}
        return sorted(self.dataset.splits, key=lambda split: (order.get(split, 3), split))

    @cached_property
    def counts(self) -> pd.DataFrame:
        """Number of samples by label (rows) and split (columns)."""
        table = pd.crosstab(self.samples["label"], self.samples["split"])
        return table.reindex(
            index=range(len(self.dataset.titles)), columns=self.splits, fill_value=0
        )

    @cached_property
    def suspects(self) -> list[Suspects]:
        """The kinds of suspect images of which there are some, among those that were measured."""
        return find_suspects(self.measured)

    @cached_property
    def copies(self) -> list[CopyKind]:
        """The kinds of suspect copies of which there are some."""
        return copy_kinds(self.dataset.copies)

    @cached_property
    def sheets(self) -> dict[int, list[str]]:
        """Keys of the samples that are shown of each class, chosen by a hash; none of the test."""
        num_classes = len(self.dataset.titles)
        count = min(MAX_PER_CLASS, max(1, MAX_PICTURES // num_classes))
        unusable = [sample.key for sample in self.left_out]
        is_open = (self.samples["split"] != SEALED) & ~self.samples["key"].isin(unusable)
        open_samples = self.samples[is_open]
        keys: dict[int, list[str]] = {label: [] for label in range(num_classes)[:MAX_PICTURES]}
        for label, key in zip(open_samples["label"], open_samples["key"], strict=True):
            if label in keys:
                keys[label].append(key)
        return {label: sorted(keys[label], key=_chance)[:count] for label in keys}

    def shown_keys(self) -> list[str]:
        """Return the keys of all samples whose pictures the page shows."""
        return list(
            dict.fromkeys(
                [*(key for keys in self.sheets.values() for key in keys), *self.suspect_keys()]
            )
        )

    def suspect_keys(self) -> list[str]:
        """Return the keys of the suspect samples, copies among them, whose pictures are shown."""
        return keys_with_pictures(self.measured, self.dataset.copies)

    def class_name(self, label: int) -> str:
        """Return the readable name of a class."""
        return self.dataset.titles[label]


def copy_kinds(
    groups: Sequence[CopyGroup], num_groups: Mapping[str, int] | None = None
) -> list[CopyKind]:
    """Return the kinds of suspect copies of which there are some, the worst first.

    Args:
        groups: The groups.
        num_groups: Number of groups by the kind's name, if `groups` are not all.
    """
    kinds = (
        (
            "leaks",
            "Copies in several splits",
            "An accuracy on images that were trained on says nothing about new ones.",
            tuple(group for group in groups if group.leaks),
        ),
        (
            "contradictions",
            "One image under several labels",
            "At least one of the labels is wrong.",
            tuple(group for group in groups if group.contradicts),
        ),
        (
            "repetitions",
            "Copies within a split",
            "They count several times in training, and in the accuracy.",
            tuple(group for group in groups if not group.leaks and not group.contradicts),
        ),
    )
    return [
        CopyKind(name, title, reason, found, (num_groups or {}).get(name, len(found)))
        for name, title, reason, found in kinds
        if found
    ]


def shown_copies(groups: Sequence[CopyGroup]) -> tuple[CopyGroup, ...]:
    """Return the groups that a report shows, the first of each kind."""
    shown = [group for kind in copy_kinds(groups) for group in kind.groups[:MAX_SUSPECTS]]
    return tuple(dict.fromkeys(shown))


def sample_keys(measured: pd.DataFrame) -> list[str]:
    """Return the keys of samples that stand for the data in a report, chosen by a hash.

    One of each class comes first, then a second one, of all splits but the sealed test.
    """
    rows = measured[measured["split"] != SEALED]
    order = sorted(range(len(rows)), key=lambda position: _chance(rows["key"].iloc[position]))
    rows = rows.iloc[order]
    turn = rows.groupby("label").cumcount()
    in_turn = rows.assign(turn=turn).sort_values(["turn", "label"], kind="stable")
    return [str(key) for key in in_turn["key"][:MAX_SAMPLES]]


def keys_with_pictures(measured: pd.DataFrame, copies: Sequence[CopyGroup]) -> list[str]:
    """Return the keys of the samples of which a report shows pictures.

    Those that stand for the data, and suspect ones, copies among them.
    """
    keys = [key for kind in find_suspects(measured) for key in kind.rows["key"][:MAX_SUSPECTS]]
    keys += [
        key
        for kind in copy_kinds(copies)
        for group in kind.groups[:MAX_SUSPECTS]
        for key, *_ in members(group)
    ]
    return list(dict.fromkeys([*keys, *sample_keys(measured)]))


def members(group: CopyGroup) -> list[tuple[str, str, int]]:
    """Return key, split and label of the samples of a group that are shown.

    One of each split and label comes first.
    """
    kinds = list(zip(group.splits, group.labels, strict=True))
    repeated = [kind in kinds[:position] for position, kind in enumerate(kinds)]
    order = sorted(range(len(kinds)), key=lambda position: repeated[position])
    return [(group.keys[each], *kinds[each]) for each in order[:MAX_PER_GROUP]]


def picture_name(key: str) -> str:
    """Return the name of the file with the small picture of a sample."""
    return f"{_chance(key).hex()[:16]}.jpg"


def find_suspects(measured: pd.DataFrame) -> list[Suspects]:
    """Return the kinds of suspect images of which there are some among those measured."""
    return [suspects for suspects in _suspects(measured) if len(suspects.rows)]


def _suspects(measured: pd.DataFrame) -> Iterator[Suspects]:
    sides = measured[["width", "height"]]
    shorter, longer = sides.min(axis=1), sides.max(axis=1)
    aspect = longer / shorter
    median = shorter.median() if len(shorter) else 0
    size_text = [f"{w} x {h} pixels" for w, h in sides.itertuples(index=False)]
    limit = max(TINY_FRACTION * median, min(TINY_SIDE, median / 2))
    yield _chosen(
        "tiny",
        f"The shorter side is below {limit:.0f} pixels, the median is {median:.0f}.",
        measured,
        shorter < limit,
        worst=shorter,
        found=size_text,
    )
    yield _chosen(
        "odd aspect",
        f"One side is more than {ODD_ASPECT:g} times the other: a crop shows little of the image.",
        measured,
        aspect > ODD_ASPECT,
        worst=-aspect,
        found=size_text,
    )
    contrast, brightness = measured["contrast"], measured["brightness"]
    is_blank = contrast < BLANK_CONTRAST
    yield _chosen(
        "blank",
        f"The grey values have a standard deviation below {BLANK_CONTRAST:g} of 255.",
        measured,
        is_blank,
        worst=contrast,
        found=[f"contrast {value:.1f}" for value in contrast],
    )
    for kind, is_extreme, worst in (
        ("dark", brightness < DARK, brightness),
        ("bright", brightness > BRIGHT, -brightness),
    ):
        where = f"below {DARK:g}" if kind == "dark" else f"above {BRIGHT:g}"
        yield _chosen(
            kind,
            f"The mean grey value is {where} of 255.",
            measured,
            is_extreme & ~is_blank,
            worst=worst,
            found=[f"brightness {value:.1f}" for value in brightness],
        )


def _chosen(
    kind: str,
    reason: str,
    measured: pd.DataFrame,
    is_suspect: "pd.Series[bool]",
    *,
    worst: "pd.Series[float]",
    found: list[str],
) -> Suspects:
    """Return the suspects of a kind; those with the least value of `worst` come first."""
    rows = measured[["split", "key", "label"]].assign(found=found, worst=worst)[is_suspect]
    return Suspects(kind, reason, rows.sort_values(["worst", "key"]).drop(columns="worst"))


def _chance(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
