"""Sources of samples: every form in which people have their images, behind one protocol."""

import os
from pathlib import Path

from sknet.data.sources.digits import Digits
from sknet.data.sources.folders import ClassFolders, UnsplitFolders
from sknet.data.sources.idx import FashionMnist
from sknet.data.sources.ilsvrc import TRAIN as ILSVRC_TRAIN
from sknet.data.sources.ilsvrc import IlsvrcArchives
from sknet.data.sources.kaggle import KaggleImagenet
from sknet.data.sources.kinds import split_of
from sknet.data.sources.source import ALL_SPLITS, SPLITS, TEST, Sample, Source, SplitRule
from sknet.data.sources.split_rule import DEFAULT_VAL_FRACTION, GROUP_FILE, split_query
from sknet.data.sources.trees import FileTree, open_tree
from sknet.errors import UserError

__all__ = ["ALL_SPLITS", "SPLITS", "TEST", "Sample", "Source", "absolute", "open_source"]

DIGITS = "digits"
FASHION_MNIST = "fashion-mnist:"


def open_source(source: str) -> Source:
    """Open a source by what users write.

    Args:
        source: One of:

            digits                    scikit-learn's digits
            fashion-mnist:DIR         the IDX files of Fashion-MNIST
            DIR                       train/ and val/ with a folder for each class; such folders
                                      alone; the ILSVRC2012 archives; or ImageNet as Kaggle
                                      unpacks it
            s3://bucket/prefix        any of the directories

            After it may stand ?val=0.1&test=0.1&seed=0: splits that the source doesn't have, with
            the fraction of its training images that each takes, and the seed that chooses them.

    Raises:
        UserError: The source is missing, has none of these forms, or has a split to draw already.
    """
    location, rule = _split_rule(source)
    opened, tree = _open(location)
    default = {"val": DEFAULT_VAL_FRACTION} if isinstance(opened, UnsplitFolders) else {}
    fractions = default | rule.fractions
    for split in fractions.keys() & opened.splits:
        raise UserError(
            f"data source {source!r} has a split {split!r} of its own: leave ?{split}= out"
        )
    if not {*SPLITS} <= {*opened.splits, *fractions}:
        raise UserError(
            f"data directory {location} has no folder 'val': expected train/<class>/<images> and "
            f"val/<class>/<images>, or {location}?val=0.1 to hold out a tenth of train"
        )
    has_groups = tree is not None and GROUP_FILE in tree.children("").files
    opened.split_rule = SplitRule(fractions, rule.seed, tree if has_groups else None)
    return opened


def _open(location: str) -> tuple[Source, FileTree | None]:
    """Return the source at a location, and its directory; None if it has none."""
    if location == DIGITS:
        return Digits(), None
    if location.startswith(FASHION_MNIST):
        tree = open_tree(location.removeprefix(FASHION_MNIST))
        return FashionMnist(tree), tree
    tree = open_tree(location)
    top = tree.children("")
    if ILSVRC_TRAIN in top.files:
        return IlsvrcArchives(tree), tree
    if "ILSVRC" in top.folders:
        return KaggleImagenet(tree), tree
    if any(map(split_of, top.folders)):
        return ClassFolders(tree), tree
    return UnsplitFolders(tree), tree


def absolute(source: str) -> str:
    """Return the same source for a program that runs in another directory."""
    if source.partition("?")[0] == DIGITS or "://" in source:
        return source
    prefix = FASHION_MNIST if source.startswith(FASHION_MNIST) else ""
    return f"{prefix}{Path(source.removeprefix(prefix)).absolute()}"


def _split_rule(source: str) -> tuple[str, SplitRule]:
    """Return the location without the query, and the rule that the query gives."""
    location, question, query = source.rpartition("?")
    if not question or os.path.exists(source):  # noqa: PTH110 (Path's raises for an overlong name)
        return source, SplitRule()
    return location, split_query(source, query)
