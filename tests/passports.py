"""A store with one promoted run on real digits that nobody trained, and keys to sign with."""

from pathlib import Path

from infra.artifacts import LocalStore, Manifest
from sknet.data.sources import open_source
from sknet.data.staging import stage_source
from sknet.passport.signing import new_key
from sknet.records import Check, Evaluation, Promotion, Shards
from sknet.records.calibration import CALIBRATION_FILE, Calibration, ThresholdCounts
from tasks.catalog.production import put_promotion
from tests.candidates import put_changed
from tests.synthetic_store import Filler


def promoted_store(root: Path) -> LocalStore:
    """Return a store with a data set, shards, a checkpoint, its evaluation and its promotion."""
    filler = Filler(root)
    store = filler.store
    for kind, manifest in (("shards", filler.shards), ("dataset", filler.dataset)):
        store.remove(kind, manifest.key)
    staged = stage_source(open_source("digits"))
    scratch = root.with_name("staged")
    scratch.mkdir()
    staged.write(scratch)
    files = {path.name: path.read_bytes() for path in scratch.iterdir()}
    filler.dataset = filler.put(
        "dataset", {"dataset": staged.dataset.content_digest}, {}, files, 0.2, format_version=2
    )
    filler.shards = filler.put(
        "shards",
        {"num_shards": 4},
        {"dataset": filler.dataset.digest},
        {"shards.json": Shards(dataset=staged.dataset, files=(), quarantined=())},
        5.5,
    )
    checkpoint, evaluated = filler.run(1)
    assert evaluated is not None
    original = store.load("evaluation", evaluated.key)
    calibrated = put_changed(store, original, add_calibration, params={"numpy": "with it"})
    store.remove("evaluation", evaluated.key)
    promote(store, checkpoint, calibrated.manifest)
    return store


def add_calibration(evaluation: Path) -> None:
    """Add a calibration, by which probabilities from 0.9 on are wrong once in 100 times."""
    Calibration(
        split="val",
        resolution=32,
        temperature=1.25,
        is_fitted=True,
        num_fitted=180,
        num_held_out=180,
        error_before=0.125,
        error_after=0.0625,
        curve=(
            ThresholdCounts(probability=0.2, fitted=(180, 18), held_out=(180, 18)),
            ThresholdCounts(probability=0.9, fitted=(100, 1), held_out=(100, 1)),
        ),
    ).write(evaluation / CALIBRATION_FILE)


def promote(store: LocalStore, checkpoint: Manifest, evaluation: Manifest) -> None:
    counts = Evaluation.read(store.load("evaluation", evaluation.key).path("evaluation.json"))
    promotion = Promotion(
        candidate=checkpoint.digest,
        production=None,
        correct_top1=counts.correct_top1,
        seen=counts.seen,
        floor=0.9,
        significance=0.05,
        comparison=None,
        criteria=(Check(name="accuracy@1", passed=True, detail="97 %; expected 90 %"),),
    )
    put_promotion(store, promotion, evaluation, None)
    store.refs.set("production", checkpoint, expected=None, reason="first")


def key_pair(directory: Path, name: str = "key.pem") -> tuple[Path, Path]:
    """Return the paths of a new private key and of its public one."""
    private = directory / name
    return private, new_key(private)
