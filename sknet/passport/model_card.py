"""The model card: what a promoted checkpoint is, how good, on which data, and what it must not do.

Markdown with the front matter that model hubs read. All figures come from records; what only people
know comes from their card, and what they didn't fill in is said to be missing.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from tabulate import tabulate

from sknet.errors import UserError
from sknet.passport.croissant import leak_sentences
from sknet.passport.fields import CardFields
from sknet.recipe import BESIDES_TRAINING, Recipe
from sknet.records import Checkpoint, Evaluation, Promotion, Shards
from sknet.records.calibration import Calibration
from sknet.records.preprocessing import Preprocessing
from sknet.records.training import MODEL_FILE
from sknet.significance import Interval

MAX_CLASSES = 100
"""Most classes with a row of their own: the worst ones of more. `classes.csv` has them all."""

FEW_IMAGES = 35
"""With fewer validation images, even a perfect recall of a class shows less than 90 %: the interval
of 34 of 34 begins at 0.898."""

ERROR_RATES = (0.01, 0.05)
"""Rates of wrong predictions for which the card has the threshold."""

NOT_TOLD = "*Not told: fill in `{}` of the card.*"


@dataclass(frozen=True)
class ModelFacts:
    """What the records say of a checkpoint."""

    name: str
    """Name of the recipe."""
    checkpoint: Checkpoint
    digest: str
    """Digest of the checkpoint's artifact."""
    evaluations: tuple[Evaluation, ...]
    """At each resolution, the recipe's own first; none if a check failed."""
    shards: Shards
    promotion: Promotion | None
    """None if it was promoted by hand."""
    calibration: Calibration | None = None
    """None in evaluations of earlier versions."""


def model_card(facts: ModelFacts, fields: CardFields, signed_by: str | None) -> bytes:
    """Return the model card.

    Args:
        facts: What the records say.
        fields: What people say.
        signed_by: Id of the key that signs the chain of digests; None if nothing is signed.
    """
    name = fields.name or facts.name
    parts = [
        f"# {escape(name)}",
        fields.description or _summary(facts),
        "## Use",
        *_use(fields),
        "## Results",
        *_results(facts),
        "## Classes",
        *_classes(facts),
        "## Calibration",
        *_calibration(facts),
        "## Limits",
        *_limits(facts, fields),
        "## Data",
        *_data(facts, fields),
        "## Input",
        _input(facts.checkpoint.run.recipe),
        "## Training",
        *_training(facts),
        "## Promotion",
        *_promotion(facts.promotion),
        "## Integrity",
        *_integrity(facts, signed_by),
    ]
    if fields.citation:
        parts += ["## Citation", fields.citation]
    front = yaml.safe_dump(_front_matter(name, facts, fields), sort_keys=False, allow_unicode=True)
    body = "\n\n".join(part.strip() for part in parts if part.strip())
    return f"---\n{front}---\n\n{body}\n".encode()


def _front_matter(name: str, facts: ModelFacts, fields: CardFields) -> dict[str, Any]:
    front: dict[str, Any] = {}
    if fields.license:
        front["license"] = fields.license.lower()
    if fields.license_link:
        front["license_link"] = fields.license_link
    front |= {
        "library_name": "mindspore",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "selective-kernel", facts.checkpoint.run.recipe.model],
    }
    if not facts.evaluations:
        return front
    front["metrics"] = ["accuracy"]
    dataset = facts.shards.dataset
    front["model-index"] = [
        {
            "name": name,
            "results": [
                {
                    "task": {"type": "image-classification"},
                    "dataset": {
                        "name": fields.data.name or dataset.source,
                        "type": dataset.source,
                        "split": counts.split,
                    },
                    "metrics": [
                        {
                            "type": "accuracy",
                            "name": f"accuracy@1 at {counts.resolution} pixels",
                            "value": round(counts.accuracy_top1, 6),
                        }
                    ],
                }
                for counts in facts.evaluations
            ],
        }
    ]
    return front


def _summary(facts: ModelFacts) -> str:
    run, counts = facts.checkpoint.run, next(iter(facts.evaluations), None)
    text = (
        f"A {escape(run.recipe.model)} with {facts.checkpoint.num_params:,} parameters, trained on "
        f"{facts.shards.num_samples('train'):,} images of {len(run.classes):,} classes."
    )
    if counts is None:
        return f"{text} It was not evaluated."
    low, high = counts.interval_top1
    return (
        f"{text} It predicts {counts.accuracy_top1:.2%} of {counts.seen:,} other images correctly "
        f"(95 % interval {low:.2%} to {high:.2%})."
    )


def _use(fields: CardFields) -> Iterable[str]:
    licence = escape(fields.license) if fields.license else NOT_TOLD.format("license")
    if fields.license and fields.license_link:
        licence += f" (<{fields.license_link}>)"
    yield f"- Licence of the weights: {licence}"
    yield f"**Intended use.** {fields.intended_use or NOT_TOLD.format('intended_use')}"
    yield f"**Not intended.** {fields.out_of_scope or NOT_TOLD.format('out_of_scope')}"
    if fields.authors:
        yield f"Authors: {fields.authors}"
    if fields.contact:
        yield f"Contact: {fields.contact}"


def _results(facts: ModelFacts) -> Iterable[str]:
    if not facts.evaluations:
        yield "It was not evaluated: a check of the checkpoint failed."
        return
    rows = []
    for counts in facts.evaluations:
        where = f"{counts.split}, {counts.resolution} pixels"
        accuracy = Interval(counts.accuracy_top1, *counts.interval_top1)
        rows.append((where, "accuracy@1", _percent(accuracy), counts.seen))
        if without := counts.without_leaked:
            told = f"{without[0] / without[1]:.2%}"
            rows.append((where, "accuracy@1 without leaked images", told, without[1]))
        if counts.is_top5_telling:
            rows.append((where, "accuracy@5", f"{counts.accuracy_top5:.2%}", counts.seen))
        for name, value in counts.means.items():
            if value is not None:
                rows.append((where, name, _percent(value), counts.seen))
    yield _table(rows, ("evaluated on", "number", "value and 95 % interval", "images"))
    yield (
        "Intervals tell how much a result may differ on another set of as many images of the same "
        "kind. They don't tell how other cameras, places or years would change it."
    )
    sealed = facts.promotion.sealed if facts.promotion else None
    if sealed:
        yield f"On the sealed test split: {sealed.text}."


def _classes(facts: ModelFacts) -> Iterable[str]:
    names = facts.checkpoint.run.classes
    if not facts.evaluations:
        yield ", ".join(map(escape, names))
        return
    results = facts.evaluations[0].classes
    shown = sorted(results, key=lambda each: each.recall.value if each.recall else 2.0)
    shown = sorted(shown[:MAX_CLASSES], key=lambda each: each.label)
    rows = [
        (
            each.label,
            escape(names[each.label]),
            each.seen,
            _percent(each.recall),
            _percent(each.precision),
        )
        for each in shown
    ]
    yield _table(rows, ("label", "class", "images", "recall", "precision"))
    if len(shown) < len(results):
        yield f"These are the {len(shown)} of {len(results):,} classes with the lowest recall."


def _calibration(facts: ModelFacts) -> Iterable[str]:
    error = facts.evaluations[0].calibration_error if facts.evaluations else None
    if error is None:
        yield "It was not measured how far probabilities can be trusted."
        return
    yield (
        f"The expected calibration error is {error:.4f}: by so much, on average, the probability "
        "of a prediction differs from the fraction of such predictions that are correct "
        f"({len(facts.evaluations[0].calibration)} equal parts of 0 … 1, without temperature)."
    )
    calibration = facts.calibration
    if calibration is None:
        return
    yield (
        f"A temperature of {calibration.temperature:.4f} was fitted on {calibration.num_fitted:,} "
        f"of these images. On the other {calibration.num_held_out:,}, it changes the error from "
        f"{calibration.error_before:.4f} to {calibration.error_after:.4f}."
        if calibration.is_fitted
        else "No temperature could be fitted: probabilities are used as they are."
    )
    thresholds = []
    for rate in ERROR_RATES:
        try:
            thresholds.append(f"- For {rate:.0%}: {calibration.threshold(rate).describe()}.")
        except UserError:
            thresholds.append(f"- For {rate:.0%}: no threshold keeps it.")
    yield "To be wrong no more often than a given rate:\n\n" + "\n".join(thresholds)


def _limits(facts: ModelFacts, fields: CardFields) -> Iterable[str]:
    limits = [
        "Each image gets one of the classes above, also if it shows none of them.",
        *(facts.promotion.warnings if facts.promotion else ()),
    ]
    limits += leak_sentences(facts.shards.dataset)
    if facts.evaluations:
        few = sum(each.seen < FEW_IMAGES for each in facts.evaluations[0].classes)
        if few:
            limits.append(
                f"{few:,} of {len(facts.evaluations[0].classes):,} classes have fewer than "
                f"{FEW_IMAGES} validation images, so that even a recall of 100 % shows less than "
                "90 % with confidence."
            )
    yield "\n".join(f"- {escape(limit)}" for limit in limits)
    yield fields.limitations or ""


def _data(facts: ModelFacts, fields: CardFields) -> Iterable[str]:
    dataset, data = facts.shards.dataset, fields.data
    if data.description:
        yield data.description
    left_out = len(dataset.quarantined) + len(facts.shards.quarantined)
    rows = [
        ("name", escape(data.name or dataset.source)),
        *((f"images in {split}", f"{count:,}") for split, count in dataset.splits.items()),
        ("files left out", f"{left_out:,}"),
        ("licence", escape(data.license) if data.license else NOT_TOLD.format("data.license")),
        ("source", data.url or NOT_TOLD.format("data.url")),
        ("SHA-256 of the samples", f"`{dataset.samples_digest}`"),
    ]
    yield _table(rows, ("data", ""))
    if data.collection:
        yield f"**Collection.** {data.collection}"
    if data.personal_information:
        yield f"**Personal information.** {data.personal_information}"
    yield "`croissant.json` describes the data set for programs."


def _input(recipe: Recipe) -> str:
    steps = Preprocessing.of(recipe, recipe.image_resize).in_words()
    numbered = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    return f"An evaluation turns an image into the network's input in these steps:\n\n{numbered}"


def _training(facts: ModelFacts) -> Iterable[str]:
    state, run = facts.checkpoint, facts.checkpoint.run
    rows = [
        ("steps", f"{state.step:,} of {run.total_steps:,}"),
        ("epochs", f"{state.epoch:,}"),
        ("images per step", f"{run.global_batch_size:,}"),
        ("ranks", f"{run.world_size:,} x {run.device_target}"),
        ("MindSpore", run.mindspore),
        ("parameters", f"{state.num_params:,}"),
    ]
    yield _table(rows, ("training", ""))
    left_out = {"ckpt_path", *BESIDES_TRAINING}
    values = run.recipe.file_values().items()
    choices = {key: value for key, value in values if key not in left_out}
    recipe = yaml.safe_dump(choices, allow_unicode=True)
    # Indented, so that no text in it can end the block.
    yield "The recipe:\n\n" + "\n".join(f"    {line}" for line in recipe.splitlines())


def _promotion(promotion: Promotion | None) -> Iterable[str]:
    if promotion is None:
        yield "It was promoted by hand: no criteria are recorded."
        return
    rows = [
        (escape(check.name), "passed" if check.passed else "failed", escape(check.detail))
        for check in promotion.criteria
    ]
    yield _table(rows, ("criterion", "", "found and expected"))


def _integrity(facts: ModelFacts, signed_by: str | None) -> Iterable[str]:
    weights = next(file for file in facts.checkpoint.files if file.name == MODEL_FILE)
    rows = [
        (f"SHA-256 of `{MODEL_FILE}`", f"`{weights.sha256}`"),
        ("digest of the checkpoint", f"`{facts.digest}`"),
        ("signed by", f"key `{signed_by}`" if signed_by else "nobody"),
    ]
    yield _table(rows, ("file or artifact", ""))
    if signed_by:
        yield (
            "`sknet passport verify --key KEY.pub` compares checkpoint, data and this "
            "card with the signed chain."
        )


def escape(text: str) -> str:
    """Return Markdown that shows a text as it is: without markup, in one line, in one cell."""
    return re.sub(r"([\\`*_\[\]<>|&#])", r"\\\1", " ".join(text.split()))


def _percent(value: Interval | None) -> str:
    if value is None:
        return "–"  # noqa: RUF001 (the dash of an empty cell)
    return f"{value.value:.2%} ({value.low:.2%} to {value.high:.2%})"


def _table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    return str(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
