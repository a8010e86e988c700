"""The page of a data set: what a person wants to see of it before training."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from sknet.report.data_contents import (
    MAX_PER_GROUP,
    MAX_SUSPECTS,
    CopyKind,
    DataContents,
    Suspects,
    members,
)
from sknet.report.data_figures import counts_figure, describe_counts, measured_figures
from sknet.report.template import data_uri, embedded, render
from sknet.report.text import UNKNOWN, bytes_text

MAX_ROWS = 100
"""Most rows of the tables of files that were left out or ignored."""


def render_data_page(contents: DataContents) -> str:
    """Return the page. Equal contents give equal bytes."""
    return render(
        "data.html.j2",
        name=contents.name,
        headline=headline(contents),
        tiles=tiles(contents),
        drawings=[
            embedded(counts_figure(contents.counts, contents.dataset.titles)),
            *map(embedded, measured_figures(contents.measured, contents.dataset.titles)),
        ],
        classes=class_table(contents),
        sheets=[
            {
                "title": contents.class_name(label),
                "pictures": [_picture(contents.pictures, key, key) for key in keys],
            }
            for label, keys in contents.sheets.items()
        ],
        copy_kinds=[
            copies_as_cards(kind, contents.dataset.titles, contents.pictures)
            for kind in contents.copies
        ],
        suspects=[
            suspects_as_cards(kind, contents.dataset.titles, contents.pictures)
            for kind in contents.suspects
        ],
        left_out=left_out_table(contents).head(MAX_ROWS),
        num_left_out=len(contents.left_out),
        ignored=pd.DataFrame(contents.ignored[:MAX_ROWS], columns=["file", "reason"]),
        num_ignored=len(contents.ignored),
        max_rows=MAX_ROWS,
        notes=list(_notes(contents)),
    )


def headline(contents: DataContents) -> str:
    """Return what the data set is, in one sentence or two."""
    splits = ", ".join(f"{contents.dataset.splits[split]:,} {split}" for split in contents.splits)
    return (
        f"{len(contents.samples):,} images of {len(contents.dataset.titles):,} classes ({splits}). "
        f"{describe_counts(contents.counts, contents.dataset.titles)}"
    )


def tiles(contents: DataContents) -> dict[str, tuple[str, str]]:
    """Return the few numbers at the top: name → value and what it means."""
    dataset, measured = contents.dataset, contents.measured
    num_leaked = sum(len(dataset.leaked(split)) for split in contents.splits if split != "train")
    result = {
        split: (
            f"{dataset.splits[split]:,}",
            f"images, {dataset.splits[split] / max(1, len(contents.samples)):.1%}",
        )
        for split in contents.splits
    }
    if not measured.empty:
        middle = measured[["width", "height"]].median()
        result["median size"] = (
            f"{middle['width']:.0f} x {middle['height']:.0f}",
            f"pixels, {bytes_text(int(measured['size'].median()))}",
        )
    result["leaked"] = (f"{num_leaked:,}", "images of val or test with a copy in another split")
    result["suspect"] = (
        f"{sum(len(kind.rows) for kind in contents.suspects):,}",
        "tiny, odd, blank, dark or bright",
    )
    result["left out"] = (f"{len(contents.left_out):,}", "files that can't be used")
    return result


def class_table(contents: DataContents) -> pd.DataFrame:
    """Return one row for each class, as text."""
    counts, measured = contents.counts, contents.measured
    totals = counts.sum(axis=1)
    shorter = measured[["width", "height"]].min(axis=1)
    medians = measured.assign(shorter=shorter).groupby("label").median(numeric_only=True)
    table = pd.DataFrame({"class": list(contents.dataset.titles)})
    for split in counts.columns:
        table[split] = [f"{count:,}" for count in counts[split]]
    table["share"] = [f"{total / max(1, totals.sum()):.2%}" for total in totals]
    for column, title, form in (
        ("shorter", "shorter side", "{:.0f} px"),
        ("brightness", "brightness", "{:.0f}"),
        ("contrast", "contrast", "{:.0f}"),
        ("size", "file size", ""),
    ):
        values = medians[column].reindex(counts.index)
        table[title] = [
            UNKNOWN
            if pd.isna(value)
            else form.format(value)
            if form
            else f"{value / 1024:,.1f} KiB"
            for value in values
        ]
    return table


def left_out_table(contents: DataContents) -> pd.DataFrame:
    """Return one row for each sample that was left out, with the reason."""
    return pd.DataFrame(
        [(sample.key, sample.split or UNKNOWN, sample.reason) for sample in contents.left_out],
        columns=["file", "split", "reason"],
        dtype="string",
    )


def copies_as_cards(
    kind: CopyKind, titles: tuple[str, ...], pictures: Mapping[str, bytes]
) -> dict[str, Any]:
    """Return the groups of copies of one kind, as the template shows them.

    Args:
        kind: The groups.
        titles: Names of the classes by label.
        pictures: Pictures by key.
    """
    groups = [
        {
            "how": "The same bytes" if group.exact else "Nearly the same image",
            "pictures": [
                _picture(pictures, key, f"{split}, {titles[label]}: {key}")
                for key, split, label in members(group)
            ],
            "members": [
                {"key": key, "split": split, "title": titles[label]}
                for key, split, label in members(group)
            ],
            "num_more": max(0, len(group.keys) - MAX_PER_GROUP),
        }
        for group in kind.groups[:MAX_SUSPECTS]
    ]
    return {
        "title": kind.title,
        "reason": kind.reason,
        "groups": groups,
        "num_groups": kind.num_groups,
    }


def suspects_as_cards(
    suspects: Suspects, titles: tuple[str, ...], pictures: Mapping[str, bytes]
) -> dict[str, Any]:
    """Return suspects of one kind as the template shows them; arguments as `copies_as_cards`."""
    shown = suspects.rows.head(MAX_SUSPECTS)
    return {
        "title": suspects.kind,
        "reason": suspects.reason,
        "count": len(suspects.rows),
        "pictures": [
            _picture(pictures, key, f"{key} ({titles[label]})") | {"found": found}
            for key, label, found in shown[["key", "label", "found"]].to_numpy().tolist()
        ],
    }


def _picture(pictures: Mapping[str, bytes], key: str, words: str) -> dict[str, Any]:
    return {"uri": data_uri(pictures.get(key, b"")), "words": words}


def _notes(contents: DataContents) -> Iterator[str]:
    yield from (f"{note[:1].upper()}{note[1:]}" for note in contents.notes)
    if not contents.is_complete:
        yield (
            f"Sizes, brightness and suspects are those of {len(contents.measured):,} images, "
            f"chosen at random from {len(contents.samples):,}."
        )
    if "test" in contents.splits:
        yield "The test split is sealed: only its suspect images are shown."
