"""A store with one promoted run on real digits that nobody trained, and keys to sign with."""

from pathlib import Path

from infra.artifacts import LocalStore, Manifest
from sknet.data.sources import open_source
from sknet.data.staging import stage_source
from sknet.passport.signing import new_key
from sknet.records import Check, Evaluation, Promotion, Shards
from tasks.catalog.production import put_promotion
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
    checkpoint, evaluation = filler.run(1)
    assert evaluation is not None
    promote(store, checkpoint, evaluation)
    return store


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
