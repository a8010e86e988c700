"""Passports of checkpoints: made at a promotion or by hand, and compared with what a store holds.

A passport is an artifact with a model card, Croissant metadata of the data set and, if there is a
signing key, the signed chain of digests from the images to the checkpoint and these documents.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    BuildOutput,
    FileEntry,
    Manifest,
    Ref,
    StoreError,
)
from infra.base.files import file_sha256, is_directory, status_of_new_file
from infra.base.progress import work
from sknet.data.staging import read_staged
from sknet.errors import UserError
from sknet.outputs import prepare_directory, writing
from sknet.passport.chain import (
    CARD_FILE,
    CHAIN_FILE,
    CROISSANT_FILE,
    Chain,
    Kind,
    Link,
    LinkFile,
    read_chain,
    write_chain,
)
from sknet.passport.croissant import croissant_metadata
from sknet.passport.fields import CardFields, read_card
from sknet.passport.signing import PublicKey, SigningKey, TamperedError
from sknet.records import Checkpoint, CheckpointChecks, Dataset, Evaluation, Promotion, Shards
from sknet.records.calibration import CALIBRATION_FILE, Calibration
from sknet.records.data import DATASET_FILE, INDEX_FILE, SHARDS_FILE
from sknet.records.evaluation import CHECKS_FILE, evaluation_file
from sknet.records.training import STATE_FILE
from tasks.catalog.integrity import granting_promotion, recorded_evaluation
from tasks.catalog.production import PROMOTION_FILE, created_at, newest

if TYPE_CHECKING:
    from sknet.passport.model_card import ModelFacts

PASSPORT_FORMAT = 1
DOCUMENTS = (CARD_FILE, CROISSANT_FILE)

CARD_SETTING = "SKNET_CARD"
"""Environment variable with the path of the fields that only people know."""

KEY_SETTING = "SKNET_SIGNING_KEY"
"""Environment variable with the path of the private key."""


@dataclass(frozen=True)
class Issuer:
    """What a passport is made with besides a store's records."""

    fields: CardFields
    key: SigningKey | None
    """None: the passport is not signed."""

    @classmethod
    def read(cls, card: Path | None = None, key: Path | None = None) -> "Issuer":
        """Read the files that are given; in place of others, those that the environment names.

        Raises:
            UserError: One of them can't be read or holds something else.
        """
        card = card or _path_in(CARD_SETTING)
        key = key or _path_in(KEY_SETTING)
        return cls(read_card(card) if card else CardFields(), SigningKey.read(key) if key else None)


def _path_in(setting: str) -> Path | None:
    value = os.environ.get(setting)
    return Path(value) if value else None


@dataclass(frozen=True)
class Sources:
    """The artifacts that a passport tells of."""

    dataset: Artifact
    shards: Artifact
    checkpoint: Artifact
    evaluation: Artifact
    promotion: Artifact | None
    """None: the checkpoint was promoted by hand, or not at all."""
    recipe_name: str

    @property
    def by_kind(self) -> dict[Kind, Artifact]:
        """The artifacts in the order in which they were made."""
        found: dict[Kind, Artifact] = {
            "dataset": self.dataset,
            "shards": self.shards,
            "checkpoint": self.checkpoint,
            "evaluation": self.evaluation,
        }
        return {**found, "promotion": self.promotion} if self.promotion else found

    @property
    def digests(self) -> dict[str, str]:
        """Kind → digest."""
        return {kind: artifact.digest for kind, artifact in self.by_kind.items()}


def sources_of(store: ArtifactStore, checkpoint: Artifact) -> Sources:
    """Return what belongs to a checkpoint.

    Raises:
        StoreError: Something of it isn't in the store any more, or it was never evaluated.
    """
    shards = store.find("shards", checkpoint.manifest.made_from("shards"))
    wanted = recorded_evaluation(store, checkpoint.digest, shards.digest)
    if wanted is None or wanted.key is None:
        raise StoreError(
            f"checkpoint/{checkpoint.manifest.key} was not evaluated: run train-sknet until it is"
        )
    granted = granting_promotion(store, checkpoint.digest)
    return Sources(
        dataset=store.find("dataset", shards.manifest.made_from("dataset")),
        shards=shards,
        checkpoint=checkpoint,
        evaluation=store.load("evaluation", wanted.key),
        promotion=store.load("promotion", granted.key) if granted else None,
        recipe_name=_recipe_name(store, checkpoint),
    )


def passport_spec(sources: Sources, issuer: Issuer) -> ArtifactSpec:
    """Return the spec of a checkpoint's passport."""
    return ArtifactSpec(
        kind="passport",
        format_version=PASSPORT_FORMAT,
        params={
            "card": issuer.fields.content_digest,
            "key": issuer.key.id if issuer.key else None,
            "recipe_name": sources.recipe_name,
        },
        inputs=sources.digests,
    )


def build_passport(sources: Sources, issuer: Issuer, directory: Path) -> BuildOutput:
    """Write the files of a passport into a directory, which becomes theirs alone."""
    from sknet.passport.model_card import model_card  # draws on pandas

    out = directory / "out"
    out.mkdir(exist_ok=True)
    for leftover in out.iterdir():
        leftover.unlink()
    index = _entry(sources.dataset.manifest, INDEX_FILE)
    shards = Shards.read(sources.shards.path(SHARDS_FILE))
    signer = issuer.key.id if issuer.key else None
    documents = {
        CARD_FILE: model_card(_facts(sources), issuer.fields, signer),
        CROISSANT_FILE: croissant_metadata(shards, index.sha256, issuer.fields.data),
    }
    for name, content in documents.items():
        (out / name).write_bytes(content)
    if issuer.key:
        links = [_link(kind, artifact) for kind, artifact in sources.by_kind.items()]
        links.append(_documents(sources, issuer, out))
        (out / CHAIN_FILE).write_bytes(write_chain(links, issuer.key))
    return BuildOutput(out, {"signed": issuer.key is not None}, {})


def passports_of(store: ArtifactStore, checkpoint: str) -> list[Manifest]:
    """Return the passports of the checkpoint with this digest, the newest first."""
    found = (each for each in store.list("passport") if each.inputs.get("checkpoint") == checkpoint)
    return sorted(found, key=created_at, reverse=True)


def signed_passport(store: ArtifactStore, target: Ref | Manifest, key: PublicKey) -> Artifact:
    """Return the newest passport of a checkpoint that names a key as its signer.

    Raises:
        DamagedArtifactError: A file of it differs from its manifest.
        StoreError: There is none.
    """
    for manifest in passports_of(store, target.digest):
        if manifest.params.get("key") == key.id:
            return store.load("passport", manifest.key, level="full")
    raise StoreError(
        f"{target.kind}/{target.key} has no passport that key {key.id[:10]} signed: "
        "`sknet passport make --key PRIVATE_KEY` makes one"
    )


def prepare_copy(out: Path) -> None:
    """Make the directory for a copy of a passport, before the work for it.

    Raises:
        UserError: The directory has files, or can't be written.
    """
    prepare_directory(out, "--out")
    with writing(out, "--out"):
        status_of_new_file(out)  # the file system may be full or read-only


def copy_passport(store: ArtifactStore, passport: Artifact, out: Path) -> None:
    """Copy a passport and the index of its data set into a directory.

    Raises:
        UserError: The directory can't be written.
    """
    dataset = store.find("dataset", passport.manifest.made_from("dataset"))
    paths = [passport.path(entry.path) for entry in passport.manifest.files]
    with writing(out, "--out"):
        for path in (*paths, dataset.path(INDEX_FILE)):
            (out / path.name).write_bytes(path.read_bytes())


def verify_in_store(
    store: ArtifactStore, target: Ref | Manifest, passport: Artifact, key: PublicKey
) -> tuple[dict[str, str], Chain]:
    """Compare a checkpoint and all that it was made from with the signed chain.

    Every file that the store has is read.

    Args:
        store: The store of both.
        target: Where the checkpoint is.
        passport: Its passport.
        key: The key that is trusted.

    Returns:
        Kind and key of each link → what was found; and the chain.

    Raises:
        TamperedError: Something is not what was signed.
    """
    chain = read_chain(passport.path(CHAIN_FILE).read_bytes(), key)
    _compare_files(chain.required("documents"), passport.directory, DOCUMENTS)
    if chain.required("checkpoint").digest != target.digest:
        raise TamperedError(f"{target.kind}/{target.key} is another checkpoint than the signed one")
    found = {}
    for link in chain.links:
        if link.kind != "documents":
            found[f"{link.kind}/{link.key}"] = _compare_stored(store, link)
    found[f"passport/{passport.manifest.key}"] = "verified"
    return found, chain


def verify_files(passport: Path, checkpoint: Path, key: PublicKey) -> Chain:
    """Compare copies of a passport and of a checkpoint's files with the signed chain.

    Args:
        passport: Directory of the passport's files.
        checkpoint: Directory of the checkpoint's files, or one of these files.
        key: The key that is trusted.

    Raises:
        TamperedError: Something is not what was signed.
        UserError: A file can't be read.
    """
    try:
        content = (passport / CHAIN_FILE).read_bytes()
    except OSError as error:
        raise UserError(f"{passport / CHAIN_FILE} can't be read: {error.strerror}") from None
    chain = read_chain(content, key)
    _compare_files(chain.required("documents"), passport, DOCUMENTS)
    link = chain.required("checkpoint")
    names = [file.path for file in link.files]
    if is_directory(checkpoint):
        _compare_files(link, checkpoint, names)
        return chain
    if checkpoint.name not in names:
        raise UserError(f"{checkpoint} is no file of a checkpoint: expected {', '.join(names)}")
    _compare_files(link, checkpoint.parent, [checkpoint.name])
    return chain


def _compare_stored(store: ArtifactStore, link: Link) -> str:
    """Compare an artifact in a store with its link; return what was found."""
    name = f"{link.kind}/{link.key}"
    try:
        damages = store.verify(link.kind, link.key, level="full")
    except StoreError as error:
        if link.kind == "checkpoint":
            raise TamperedError(f"{name} is signed and can't be found: {error}") from None
        return "signed; not in this store"
    if damages:
        raise TamperedError(f"{name} differs from its manifest: {damages[0]}")
    artifact = store.load(link.kind, link.key)
    if artifact.digest != link.digest:
        raise TamperedError(
            f"{name} has digest {artifact.digest[:10]}, and {link.digest[:10]} was signed"
        )
    if link.kind == "dataset":
        dataset = read_staged(artifact.directory).dataset
        if dataset.samples_digest != link.images:
            raise TamperedError(f"{name} lists other images than those that were signed")
    return "verified"


def _compare_files(link: Link, directory: Path, names: Sequence[str]) -> None:
    """Compare files in a directory with those of a link."""
    signed = {file.path: file for file in link.files}
    if unknown := [name for name in names if name not in signed]:
        raise TamperedError(f"the chain's {link.kind} has no file {unknown[0]}")
    with work(f"verifying {link.kind}", sum(signed[name].size for name in names)) as count:
        for name in names:
            path = directory / name
            try:
                found = file_sha256(path, count)
            except OSError as error:
                raise UserError(f"{path} can't be read: {error.strerror}") from None
            if found != signed[name].sha256:
                raise TamperedError(
                    f"{path} has SHA-256 {found[:10]}, and {signed[name].sha256[:10]} was signed"
                )


def _link(kind: Kind, artifact: Artifact) -> Link:
    manifest = artifact.manifest
    images = None
    if kind == "dataset":
        images = Dataset.read(artifact.path(DATASET_FILE)).samples_digest
    return Link(
        kind=kind,
        format_version=manifest.format_version,
        params=manifest.params,
        inputs=manifest.inputs,
        files=tuple(
            LinkFile(path=entry.path, size=entry.size, sha256=entry.sha256)
            for entry in manifest.files
        ),
        images=images,
    )


def _documents(sources: Sources, issuer: Issuer, directory: Path) -> Link:
    """Return the link of the documents in a directory."""
    return Link(
        kind="documents",
        format_version=PASSPORT_FORMAT,
        params={"card": issuer.fields.content_digest, "recipe_name": sources.recipe_name},
        inputs=sources.digests,
        files=tuple(
            LinkFile(
                path=name,
                size=(directory / name).stat().st_size,
                sha256=file_sha256(directory / name),
            )
            for name in DOCUMENTS
        ),
    )


def _facts(sources: Sources) -> "ModelFacts":
    """Return what the records say of a checkpoint."""
    from sknet.passport.model_card import ModelFacts

    state = Checkpoint.read(sources.checkpoint.path(STATE_FILE))
    recipe = state.run.recipe
    evaluation, promotion = sources.evaluation, sources.promotion
    checks = CheckpointChecks.read(evaluation.path(CHECKS_FILE))
    sides = recipe.resolutions if checks.passed else ()
    calibrated = any(entry.path == CALIBRATION_FILE for entry in evaluation.manifest.files)
    return ModelFacts(
        name=sources.recipe_name,
        checkpoint=state,
        digest=sources.checkpoint.digest,
        evaluations=tuple(
            Evaluation.read(evaluation.path(evaluation_file(recipe, side))) for side in sides
        ),
        shards=Shards.read(sources.shards.path(SHARDS_FILE)),
        promotion=Promotion.read(promotion.path(PROMOTION_FILE)) if promotion else None,
        calibration=(Calibration.read(evaluation.path(CALIBRATION_FILE)) if calibrated else None),
    )


def _recipe_name(store: ArtifactStore, checkpoint: Artifact) -> str:
    """Return the name of a checkpoint's recipe, as its newest log has it; else its model's."""
    key = checkpoint.manifest.key
    log = newest(each for each in store.list("training-log") if each.params.get("run") == key)
    if log and "recipe_name" in log.params:
        return str(log.params["recipe_name"])
    return Checkpoint.read(checkpoint.path(STATE_FILE)).run.recipe.model


def _entry(manifest: Manifest, name: str) -> FileEntry:
    """Return a file of an artifact, as its manifest has it.

    Raises:
        StoreError: It has no such file.
    """
    found = next((entry for entry in manifest.files if entry.path == name), None)
    if found is None:
        raise StoreError(f"{manifest.kind}/{manifest.key} has no file {name}")
    return found
