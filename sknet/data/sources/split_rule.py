"""What users say about splits: the fractions after `?` in a source, and the file groups.csv."""

import csv
import io
import unicodedata
from urllib.parse import parse_qsl

from sknet.data.sources.source import SPLITS, TEST, SplitRule, read_table
from sknet.data.sources.trees import FileTree
from sknet.errors import UserError

DEFAULT_VAL_FRACTION = 0.1
"""Fraction of each class that is held out of folders without a split."""

GROUP_FILE = "groups.csv"
"""File at the top of a source that names the group of each image, such as a patient or a camera."""

MAX_GROUP_FILE_BYTES = 1 << 28
"""Largest group file: about two million images with names of 100 characters."""

DRAWN = (SPLITS[1], TEST)
"""Splits that can be drawn from the training images."""


def split_query(source: str, query: str) -> SplitRule:
    """Return what a query asks for.

    Args:
        source: The whole source, for messages.
        query: What follows the question mark, such as `val=0.1&test=0.1&seed=0`.

    Raises:
        UserError: It is no such query.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
        given = dict(pairs)
        names = [name for name, _ in pairs]
        fractions = {split: float(given.pop(split)) for split in DRAWN if split in given}
        seed = int(given.pop("seed", "0"))
    except ValueError:
        raise UserError(f"data source {source!r}: val, test and seed are numbers") from None
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"data source {source!r} gives {name!r} twice: give it once")
    fits = all(fraction > 0 for fraction in fractions.values()) and sum(fractions.values()) < 1
    if given or not fits:
        raise UserError(
            f"data source {source!r}: expected ?val=FRACTION&test=FRACTION&seed=NUMBER, or some of "
            "these, with fractions above 0 and below 1 in total"
        )
    return SplitRule(fractions, seed)


def read_groups(tree: FileTree) -> dict[str, str]:
    """Return the group of each image by its path, as groups.csv at the top of a source says.

    A line without a group stands for an image that is a group of its own.

    Raises:
        UserError: The file can't be read, is no CSV file with the columns `path` and `group`
            once each, or gives one path two groups.
    """
    try:
        # Spreadsheets write a byte order mark.
        text = read_table(tree, GROUP_FILE, MAX_GROUP_FILE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{tree.location}/{GROUP_FILE} is not UTF-8") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    groups: dict[str, str] = {}
    try:
        header = [name.strip() for name in next(rows, [])]
        if not {"path", "group"} <= set(header):
            raise UserError(
                f"{tree.location}/{GROUP_FILE} line 1 is {','.join(header)[:80]!r}: expected the "
                "columns path,group"
            )
        for name in ("path", "group"):
            if header.count(name) > 1:
                raise UserError(
                    f"{tree.location}/{GROUP_FILE} line 1 has the column {name!r} twice: keep one"
                )
        path_column, group_column = header.index("path"), header.index("group")
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise csv.Error(f"{len(row)} values, expected {len(header)}")
            path = normalised(row[path_column])
            group = row[group_column].strip()
            if groups.setdefault(path, group) != group:
                raise csv.Error(f"{path} has the groups {groups[path]!r} and {group!r}")
    except csv.Error as error:
        raise UserError(f"{tree.location}/{GROUP_FILE} line {rows.line_num}: {error}") from None
    return groups


def normalised(path: str) -> str:
    """Return a path of the group file, or a key, in the form in which both are compared."""
    return unicodedata.normalize("NFC", path.strip().replace("\\", "/").removeprefix("./"))
