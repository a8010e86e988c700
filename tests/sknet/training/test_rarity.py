"""Weights and offsets of classes are the published ones for what the sampler reads."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from sknet.data.balanced_order import SamplesByClass
from sknet.data.shards import ShardSet
from sknet.training.rarity import class_counts, class_weights, describe, logit_offsets
from tests.refusals import refusal
from tests.sknet.recipes import recipe

COUNTS = np.array([400, 100, 25])


def test_balanced_weights_are_scikit_learns() -> None:
    theirs = compute_class_weight(
        "balanced", classes=np.arange(3), y=np.repeat(np.arange(3), COUNTS)
    )
    ours = class_weights(recipe(class_weights="balanced"), COUNTS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_balanced_weights_complete_what_the_sampler_leaves_uneven() -> None:
    # Shares of 20, 10 and 5 of 35.
    weights = class_weights(recipe(class_weights="balanced", sampler="sqrt"), COUNTS)
    np.testing.assert_allclose(weights, [35 / 60, 35 / 30, 35 / 15], rtol=1e-6)


@pytest.mark.parametrize(("sampler", "mean"), [("uniform", 750 / 525), ("balanced", 3)])
def test_given_weights_keep_their_ratio_and_have_the_mean_1(sampler: str, mean: float) -> None:
    weights = class_weights(recipe(class_weights=[1, 2, 6], sampler=sampler), COUNTS)
    np.testing.assert_allclose(weights, np.array([1, 2, 6]) / mean, rtol=1e-6)


def test_offsets_are_logarithms_of_the_shares_times_the_adjustment() -> None:
    offsets = logit_offsets(recipe(logit_adjustment=1.5), COUNTS)
    np.testing.assert_allclose(offsets, 1.5 * np.log(COUNTS / 525), rtol=1e-6)
    of_roots = logit_offsets(recipe(logit_adjustment=1, sampler="sqrt"), COUNTS)
    np.testing.assert_allclose(of_roots, np.log(np.array([20, 10, 5]) / 35), rtol=1e-6)


def test_a_recipe_that_treats_classes_alike_needs_no_counts(converted: ShardSet) -> None:
    assert class_counts(recipe(), converted) is None
    assert class_weights(recipe(), COUNTS) is None
    assert logit_offsets(recipe(), COUNTS) is None


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"sampler": "balanced"}, "sampler balanced"),
        ({"sampler": "sqrt"}, "sampler sqrt"),
        ({"class_weights": "balanced"}, "class_weights balanced"),
        ({"logit_adjustment": 1}, "logit_adjustment"),
    ],
)
def test_a_class_without_samples_is_refused_where_it_should_count_more(
    changes: dict[str, object], key: str, converted: ShardSet
) -> None:
    shards = ShardSet(converted.record, converted.directory)
    labels = np.repeat(np.array([0, 2], np.int32), 5)
    vars(shards)["by_class"] = SamplesByClass.of(labels, 3)
    assert refusal(lambda: class_counts(recipe(**changes), shards)) == (
        f"class 'dog' has no training samples, which {key} can't make up for: add some, or remove "
        "the class"
    )
    given = class_counts(recipe(class_weights=[1, 2, 3]), shards)
    assert given is not None
    assert given.tolist() == [5, 0, 5]


def test_the_log_says_how_often_the_rarest_and_the_commonest_class_are_read() -> None:
    classes = ("cat", "dog", "emu")
    assert describe(recipe(sampler="balanced"), classes, COUNTS, 600) == (
        "rarest class 'emu', 25 samples, 200 reads an epoch; "
        "commonest 'cat', 400 samples, 200 reads an epoch"
    )
    assert describe(recipe(class_weights="balanced"), classes, COUNTS, 525) == (
        "rarest class 'emu', 25 samples, 25 reads an epoch, weight 7; "
        "commonest 'cat', 400 samples, 400 reads an epoch, weight 0.438"
    )
    assert describe(recipe(logit_adjustment=1), classes, COUNTS, 525) == (
        "rarest class 'emu', 25 samples, 25 reads an epoch, logit -3.04; "
        "commonest 'cat', 400 samples, 400 reads an epoch, logit -0.272"
    )
