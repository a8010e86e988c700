"""Sources of samples: every form in which people have their images, behind one protocol."""

import math
import os
from pathlib import Path
from urllib.parse import parse_qsl

from sknet.data.sources.digits import Digits
from sknet.data.sources.folders import ClassFolders, SplitRule, UnsplitFolders
from sknet.data.sources.idx import FashionMnist
from sknet.data.sources.ilsvrc import TRAIN as ILSVRC_TRAIN
from sknet.data.sources.ilsvrc import IlsvrcArchives
from sknet.data.sources.kaggle import KaggleImagenet
from sknet.data.sources.source import ALL_SPLITS, SPLITS, TEST, Sample, Source
from sknet.data.sources.trees import open_tree
from sknet.errors import UserError

__all__ = ["ALL_SPLITS", "SPLITS", "TEST", "Sample", "Source", "absolute", "open_source"]

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
            DIR?val=0.1&seed=0        folders of classes alone, with the fraction to hold out for
                                      validation, and the seed that chooses it
            s3://bucket/prefix        any of the directories

    Raises:
        UserError: The source is missing or has none of these forms.
    """
    if source == "digits":
        return Digits()
    if source.startswith(FASHION_MNIST):
        return FashionMnist(open_tree(source.removeprefix(FASHION_MNIST)))
    location, rule = _split_rule(source)
    tree = open_tree(location)
    top = tree.children("")
    if ILSVRC_TRAIN in top.files:
        return IlsvrcArchives(tree)
    if "ILSVRC" in top.folders:
        return KaggleImagenet(tree)
    if set(SPLITS) & set(top.folders):
        return ClassFolders(tree)
    return UnsplitFolders(tree, rule)


def absolute(source: str) -> str:
    """Return the same source for a program that runs in another directory."""
    if source == "digits" or "://" in source:
        return source
    prefix = FASHION_MNIST if source.startswith(FASHION_MNIST) else ""
    return f"{prefix}{Path(source.removeprefix(prefix)).absolute()}"


def _split_rule(source: str) -> tuple[str, SplitRule]:
    """Return the location without the query, and the rule that the query gives."""
    location, question, query = source.rpartition("?")
    if not question or os.path.exists(source):  # noqa: PTH110 (Path's raises for an overlong name)
        return source, SplitRule()
    given = dict(parse_qsl(query, keep_blank_values=True))
    try:
        rule = SplitRule(
            val_fraction=float(given.pop("val", SplitRule.val_fraction)),
            seed=int(given.pop("seed", SplitRule.seed)),
        )
    except ValueError:
        raise UserError(f"data source {source!r}: val and seed are numbers") from None
    if given or not 0 < rule.val_fraction < 1 or not math.isfinite(rule.val_fraction):
        raise UserError(
            f"data source {source!r}: expected ?val=FRACTION&seed=NUMBER with a fraction above 0 "
            "and below 1"
        )
    return location, rule
