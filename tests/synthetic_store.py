"""Stores full of runs that nobody trained, whose records have the real format."""

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from infra.artifacts import ArtifactSpec, LocalStore, Manifest
from infra.base.records import Record
from sknet.evaluation.predictions import Predictions, write_predictions
from sknet.recipe import Recipe, load_recipe
from sknet.records import (
    Attention,
    CalibrationBin,
    Check,
    Checkpoint,
    CheckpointChecks,
    CheckpointFile,
    ConfusedPair,
    Counts,
    Dataset,
    Evaluation,
    Example,
    Examples,
    Layout,
    Promotion,
    QuarantinedSample,
    Repair,
    Revalidation,
    Run,
    Shards,
    UnitAttention,
)

CLASSES = tuple(map(str, range(10)))
SPLIT, SEEN, RESOLUTION = "val", 360, 32
UNITS = [f"SK_{stage}_{block}" for stage in (2, 3, 4, 5) for block in (1, 2)]
BEGIN = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)
STEPS_PER_EPOCH = 22


def sha256(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Filler:
    """Fills a store in a directory with runs."""

    def __init__(self, root: Path) -> None:
        self.store = LocalStore(root)
        self._scratch = root.with_name(f"{root.name}-scratch")
        dataset = Dataset(
            source="digits",
            classes=CLASSES,
            titles=CLASSES,
            splits={"train": 1437, SPLIT: SEEN},
            samples_digest=sha256("samples"),
            index_sha256=sha256("index"),
            quarantined=(
                QuarantinedSample(split="train", key="train/7/0042.png", reason="not an image"),
            ),
        )
        shards = Shards(
            dataset=dataset,
            files=(),
            quarantined=(
                QuarantinedSample(
                    split=SPLIT, key="val/3/0007.png", reason="does not decode: truncated"
                ),
            ),
        )
        self.dataset = self.put("dataset", {"source": "digits"}, {}, {"dataset.json": dataset}, 0.2)
        self.shards = self.put(
            "shards", {"shards": 4}, {"dataset": self.dataset.digest}, {"shards.json": shards}, 5.5
        )

    def put(
        self,
        kind: str,
        params: Mapping[str, object],
        inputs: Mapping[str, str],
        files: Mapping[str, Record | bytes],
        seconds: float,
        created: datetime = BEGIN,
        format_version: int = 1,
    ) -> Manifest:
        self._scratch.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if isinstance(content, bytes):
                (self._scratch / name).write_bytes(content)
            else:
                content.write(self._scratch / name)
        spec = ArtifactSpec(
            kind=kind, format_version=format_version, params=dict(params), inputs=dict(inputs)
        )
        provenance = {
            "created": created.isoformat(timespec="seconds"),
            "seconds": seconds,
            "host": "somewhere",
            "python": "3.11.7",
        }
        artifact = self.store.put(spec, self._scratch, stats={}, provenance=provenance)
        return artifact.manifest

    def run(
        self, number: int, *, evaluated: bool = True, recipe: Recipe | None = None, epochs: int = 8
    ) -> tuple[Manifest, Manifest | None]:
        """Add a run that learned, with everything that can be recorded of one."""
        rng = np.random.default_rng(number)
        choices = recipe or load_recipe("skresnet18_digits", [f"seed={number}"])
        created = BEGIN + timedelta(hours=number)
        wrong = int(rng.integers(6, 30))
        state = Checkpoint(
            run=Run(
                recipe=choices,
                classes=CLASSES,
                shards_digest=self.shards.digest,
                world_size=2,
                global_batch_size=64,
                steps_per_epoch=STEPS_PER_EPOCH,
                device_target="CPU",
                mindspore="2.10.0",
            ),
            layouts=(Layout(first_step=0, world_size=2),),
            step=epochs * STEPS_PER_EPOCH,
            epoch=epochs,
            samples_seen=epochs * STEPS_PER_EPOCH * 64,
            num_params=11_450_186,
            best_top1=SEEN - wrong,
            best_step=epochs * STEPS_PER_EPOCH,
            evaluations=(),
            files=(CheckpointFile(name="model.ckpt", size=7, sha256=sha256("weights")),),
        )
        seconds = float(rng.uniform(120, 200))
        checkpoint = self.put(
            "checkpoint",
            {"recipe": choices.choices(), "world_size": 2},
            {"shards": self.shards.digest},
            {"state.json": state, "model.ckpt": f"{number}".encode()},
            seconds,
            created,
            4,
        )
        self.put(
            "training-log",
            {"run": checkpoint.key, "recipe_name": "skresnet18_digits", "execution": str(number)},
            {},
            {"metrics.jsonl": metrics(rng, epochs, wrong)},
            0.0,
            created,
        )
        return checkpoint, self.evaluate(checkpoint, rng, wrong) if evaluated else None

    def evaluate(self, checkpoint: Manifest, rng: np.random.Generator, wrong: int) -> Manifest:
        labels = np.arange(SEEN) % len(CLASSES)
        predicted = labels.copy()
        missed = rng.choice(SEEN, wrong, replace=False)
        predicted[missed] = (labels[missed] + rng.integers(1, 3, wrong)) % len(CLASSES)
        evaluation = evaluation_of(labels, predicted, rng)
        keys = [f"val/{label}/{index:04}.png" for index, label in enumerate(labels)]
        top5 = [[int((top + place) % 10) for place in range(5)] for top in predicted]
        predictions = Predictions(
            labels=labels.astype(np.int32),
            top=np.array(top5, np.int32),
            probability=rng.uniform(0.5, 1, SEEN).astype(np.float32),
            loss=np.zeros(SEEN, np.float32),
        )
        pairs = {(pair.label, pair.predicted) for pair in evaluation.confused[:4]}
        shown = [index for index in missed if (int(labels[index]), int(predicted[index])) in pairs][
            :8
        ]
        examples = Examples(
            examples=tuple(
                Example(
                    file=f"example-{place:02}.png",
                    key=keys[index],
                    label=int(labels[index]),
                    predicted=int(predicted[index]),
                    probability=round(float(rng.uniform(0.6, 0.99)), 4),
                )
                for place, index in enumerate(shown)
            )
        )
        growth = np.linspace(0.09, -0.01, len(UNITS))
        attention = Attention(
            split=SPLIT,
            num_images=SEEN,
            scales=(1.0, 1.5),
            units=tuple(
                UnitAttention(unit=unit, differences=(float(base), float(base + more)))
                for unit, base, more in zip(
                    UNITS, rng.normal(0.0, 0.05, len(UNITS)).round(4), growth.round(4), strict=True
                )
            ),
        )
        checks = CheckpointChecks(
            checks=(
                Check(name="files", passed=True, detail="2 files, sha256 as recorded"),
                Check(name="parameters", passed=True, detail="all 205 present, finite"),
            )
        )
        small = evaluation_of(labels, predicted, rng, resolution=40)
        return self.put(
            "evaluation",
            {"device_target": "CPU", "mindspore": "2.10.0", "numpy": "1.26.4", "pillow": "13.0.0"},
            {"checkpoint": checkpoint.digest, "shards": self.shards.digest},
            {
                "checks.json": checks,
                "evaluation.json": evaluation,
                "evaluation-40.json": small,
                "predictions.parquet": parquet(keys, predictions, self._scratch),
                "attention.json": attention,
                "examples.json": examples,
                **{each.file: thumbnail(rng, self._scratch) for each in examples.examples},
            },
            float(rng.uniform(4, 8)),
            BEGIN,
            2,
        )

    def promote(self, checkpoint: Manifest, evaluation: Manifest, *, granted: bool = True) -> None:
        counts = Evaluation.read(
            self.store.root / "evaluation" / evaluation.key / "evaluation.json"
        )
        floor = 0.9 if granted else 1.0
        promotion = Promotion(
            candidate=checkpoint.digest,
            production=None,
            correct_top1=counts.correct_top1,
            seen=counts.seen,
            floor=floor,
            significance=0.05,
            comparison=None,
            criteria=(
                Check(name="checks", passed=True, detail="2 of 2 passed"),
                Check(
                    name="floor",
                    passed=granted,
                    detail=f"accuracy@1 {counts.accuracy_top1:.2%}, floor {floor:.2%}",
                ),
            ),
        )
        self.put(
            "promotion",
            {"checkpoint": checkpoint.digest, "floor": floor, "significance": 0.05},
            {"candidate": evaluation.digest},
            {"promotion.json": promotion},
            0.1,
        )
        if granted:
            current = self.store.refs.get("production")
            self.store.refs.set("production", checkpoint, expected=current, reason="best so far")

    def revalidate(self, number: int, checkpoint: Manifest, outcome: str = "as recorded") -> None:
        began = BEGIN + timedelta(days=number, hours=18)
        recorded = Counts(seen=SEEN, correct_top1=344, correct_top5=360, loss_sum=83.7)
        lost = {"as recorded": 0, "within tolerance": 1, "regressed": 9}.get(outcome, 0)
        found = recorded.model_copy(update={"correct_top1": 344 - lost})
        damaged = outcome == "damaged"
        repair = Repair(artifact="shards/00", how="rebuilt", damages=("size",))
        said = f"accuracy@1 {found.correct_top1}/{SEEN}, recorded 344/{SEEN}"
        found_record = Revalidation(
            checkpoint=checkpoint.digest,
            began=began,
            scheduled=began,
            outcome=outcome,  # type: ignore[arg-type]
            said="model.ckpt has another sha256" if damaged else said,
            damages=("checkpoint: 'model.ckpt': sha256",) if damaged else (),
            repairs=() if number % 7 else (repair,),
            recorded_software={"mindspore": "2.10.0"},
            software={"mindspore": "2.10.0"},
            recorded=recorded,
            found=None if damaged else found,
            tolerance=0.01,
            num_differing=lost,
            differing=(),
        )
        params = {"checkpoint": checkpoint.digest, "began": began.isoformat()}
        self.put("revalidation", params, {}, {"revalidation.json": found_record}, 7.0, began)


def evaluation_of(
    labels: np.ndarray,
    predicted: np.ndarray,
    rng: np.random.Generator,
    resolution: int = RESOLUTION,
) -> Evaluation:
    right = labels == predicted
    pairs: dict[tuple[int, int], int] = {}
    for label, other in zip(labels[~right].tolist(), predicted[~right].tolist(), strict=True):
        pairs[label, other] = pairs.get((label, other), 0) + 1
    confidence = np.clip(rng.beta(8, 1.2, len(labels)) - 0.1 * ~right, 0, 0.999)
    part = (confidence * 15).astype(int)
    return Evaluation(
        split=SPLIT,
        resolution=resolution,
        seen=len(labels),
        correct_top1=int(right.sum()),
        correct_top5=len(labels),
        loss_sum=round(float(-np.log(confidence).sum()), 6),
        class_seen=tuple(np.bincount(labels, minlength=10).tolist()),
        class_correct=tuple(np.bincount(labels[right], minlength=10).tolist()),
        confused=tuple(
            ConfusedPair(label=label, predicted=other, count=count)
            for (label, other), count in sorted(pairs.items(), key=lambda each: -each[1])
        ),
        calibration=tuple(
            CalibrationBin(
                seen=int((part == index).sum()),
                correct=int((right & (part == index)).sum()),
                confidence_sum=round(float(confidence[part == index].sum()), 6),
            )
            for index in range(15)
        ),
    )


def metrics(rng: np.random.Generator, epochs: int, wrong: int) -> bytes:
    """Return a metrics.jsonl with two lines of steps in each epoch."""
    total = epochs * STEPS_PER_EPOCH
    lines: list[dict[str, object]] = [{"type": "start", "step": 0, "world_size": 2}]
    for step in range(11, total + 1, 11):
        done = step / total
        median = float(rng.normal(640, 18))
        speed = {
            "ms_per_step": median + 6,
            "ms_per_step_p50": median,
            "ms_per_step_p90": median + 40,
            "ms_per_step_p99": median + 90,
            "images_per_second": 64_000 / median,
            "data_wait_share": 0.012,
        }
        loss = 0.55 + 1.8 * math.exp(-5 * done) + float(rng.normal(0, 0.03))
        lines.append(
            {"type": "step", "step": step, "epoch": (step - 1) // STEPS_PER_EPOCH, "loss": loss}
            | {"lr": 0.03 * (1 - done), **speed}
        )
        if step % STEPS_PER_EPOCH == 0:
            correct = round((SEEN - wrong) * (1 - 0.6 * math.exp(-6 * done)))
            counts = {"seen": SEEN, "correct_top1": correct, "correct_top5": SEEN}
            lines.append(
                {"type": "epoch", "step": step, "epoch": step // STEPS_PER_EPOCH - 1}
                | {"train_loss": loss, "seconds": 14.2, "loss_sum": 100.0, **counts}
            )
    lines.append(
        {"type": "end", "step": total, "compile_seconds": 9.4, "restarts": 0}
        | {"ms_per_step_p50": 640.0 + wrong, "ms_per_step_p90": 690.0, "ms_per_step_p99": 750.0}
        | {"images_per_second": 100.0 - wrong / 8, "data_wait_share": 0.012}
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def parquet(keys: list[str], predictions: Predictions, scratch: Path) -> bytes:
    """Return the content of a predictions.parquet."""
    path = scratch.with_suffix(".parquet")
    write_predictions(path, keys, predictions)
    content = path.read_bytes()
    path.unlink()
    return content


def thumbnail(rng: np.random.Generator, scratch: Path) -> bytes:
    """Return a PNG of noise."""
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch.with_suffix(".png")
    pixels = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(path)
    content = path.read_bytes()
    path.unlink()
    return content


def fill(root: Path, num_runs: int, num_revalidations: int = 0) -> Filler:
    """Fill a store with runs: the first is production, the second was refused promotion."""
    filler = Filler(root)
    promoted = None
    for number in range(num_runs):
        checkpoint, evaluation = filler.run(number)
        if evaluation is not None and number in (0, 1):
            filler.promote(checkpoint, evaluation, granted=number == 0)
            promoted = promoted or checkpoint
    outcomes = {4: "within tolerance", 9: "damaged", 11: "regressed"}
    for number in range(num_revalidations if promoted else 0):
        assert promoted is not None
        filler.revalidate(number, promoted, outcomes.get(number, "as recorded"))
    return filler
