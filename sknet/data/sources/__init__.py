"""Where samples come from: each form in which people have their images, behind one protocol."""

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
from sknet.data.sources.source import SPLITS, Sample, Source
from sknet.data.sources.trees import open_tree
from sknet.errors import UserError

__all__ = ["SPLITS", "Sample", "Source", "absolute", "open_source"]

FASHION_MNIST = "fashion-mnist:"


def open_source(source: str) -> Source:
    """A source by what users write:

    digits                    ships in scikit-learn
    fashion-mnist:DIR         its IDX files
    DIR                       train/ and val/ with a folder for each class; such folders alone;
                              the ILSVRC2012 archives; or ImageNet as Kaggle unpacks it
    DIR?val=0.1&seed=0        the second of these, with its share to hold out and seed
    s3://bucket/prefix        any of the directories

    Raises UserError if it has not the form.
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
    """The same source for a program that runs in another directory."""
    if source == "digits" or "://" in source:
        return source
    prefix = FASHION_MNIST if source.startswith(FASHION_MNIST) else ""
    return f"{prefix}{Path(source.removeprefix(prefix)).absolute()}"


def _split_rule(source: str) -> tuple[str, SplitRule]:
    location, question, query = source.rpartition("?")
    if not question or os.path.exists(source):  # noqa: PTH110 (Path's raises for an overlong name)
        return source, SplitRule()
    given = dict(parse_qsl(query, keep_blank_values=True))
    try:
        rule = SplitRule(
            val_share=float(given.pop("val", SplitRule.val_share)),
            seed=int(given.pop("seed", SplitRule.seed)),
        )
    except ValueError:
        raise UserError(f"data source {source!r}: val and seed are numbers") from None
    if given or not 0 < rule.val_share < 1 or not math.isfinite(rule.val_share):
        raise UserError(
            f"data source {source!r}: expected ?val=SHARE&seed=NUMBER with a share above 0 and "
            "below 1"
        )
    return location, rule
