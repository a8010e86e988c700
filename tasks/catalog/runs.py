"""What a store holds of runs and nights, for a report: sound parts as they are, others as rows."""

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from infra.artifacts import ArtifactStore, Manifest, Ref, StoreError
from sknet.errors import UserError
from sknet.records import (
    Attention,
    Checkpoint,
    CheckpointChecks,
    Evaluation,
    Examples,
    Promotion,
    Record,
    Revalidation,
    Shards,
)
from sknet.report import DataFacts, Findings, ShownExample, StageTime, TrainedRun, Unreadable
from sknet.report.findings import read_log
from tasks.promote import PRODUCTION
from tasks.results import newest

T = TypeVar("T")

# A log of 300 epochs with a line a step stays far below this.
MAX_FILE_BYTES = 1 << 28

RECORDS = (".json", ".jsonl")


class Shelf:
    """The artifacts of a store by kind; what can't be read becomes a fault, and is left out."""

    def __init__(self, store: ArtifactStore) -> None:
        self.faults: list[Unreadable] = []
        self._store = store
        self._places: dict[str, Path | None] = {}

    def list(self, kind: str) -> list[Manifest]:
        """Those with a valid manifest, by key."""
        sound = list(self._store.list(kind))
        for place in sorted({*self._store.addresses(kind)} - {(m.kind, m.key) for m in sound}):
            self.attempt("/".join(place), partial(self._say_damage, *place))
        return sound

    def _say_damage(self, kind: str, key: str) -> None:
        for damage in self._store.verify(kind, key, level="size")[:1]:
            raise StoreError(str(damage))

    def attempt(self, what: str, read: Callable[[], T]) -> T | None:
        """What `read` returns, or None and a row that says why not."""
        try:
            return read()
        except ValidationError as error:
            first = error.errors()[0]
            self.fault(what, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except OSError as error:
            self.fault(what, f"can't be read: {error.strerror or error}")
        except (StoreError, UserError, ValueError, LookupError) as error:
            self.fault(what, str(error))
        return None

    def fault(self, what: str, reason: str) -> None:
        """Say in a row of the report what is wrong, in one line."""
        self.faults.append(Unreadable(artifact=what, reason=" ".join(reason.split())[:400]))

    def records(self, manifest: Manifest) -> Path | None:
        """Where an artifact's records and logs are; None, and one row, if it is unsound."""
        what = address(manifest)
        if what not in self._places:
            names = [entry.path for entry in manifest.files if entry.path.endswith(RECORDS)]
            self._places[what] = self.attempt(what, lambda: self.files(manifest, names))
        return self._places[what]

    def files(self, manifest: Manifest, names: Collection[str]) -> Path:
        """Where these files of an artifact are. Raises StoreError if it is unsound."""
        artifact = self._store.load(manifest.kind, manifest.key)
        wanted = tuple(entry for entry in manifest.files if entry.path in names)
        for entry in wanted:
            if entry.size > MAX_FILE_BYTES:
                raise StoreError(f"{entry.path} is larger than {MAX_FILE_BYTES} bytes")
        return artifact.bring(wanted)


def address(manifest: Manifest) -> str:
    """As people name an artifact."""
    return f"{manifest.kind}/{manifest.key}"


def num_bytes(manifest: Manifest) -> int:
    """Of its files."""
    return sum(entry.size for entry in manifest.files)


R = TypeVar("R", bound=Record)

OTHER_RESOLUTION = re.compile(r"evaluation-\d+\.json")

Groups = Mapping[str, list[Manifest]]


def collect(store: ArtifactStore, *, price: float | None = None) -> Findings:
    """Every trained checkpoint of the store with all that is recorded of it, the newest first."""
    shelf = Shelf(store)
    collector = _Collector(shelf)
    checkpoints = shelf.list("checkpoint")
    production = shelf.attempt(f"refs/{PRODUCTION}.json", lambda: store.refs.get(PRODUCTION))
    collector.say_unfinished({checkpoint.key for checkpoint in checkpoints})
    # The earliest run of those that share an artifact has made it.
    runs = [
        run
        for checkpoint in sorted(checkpoints, key=_created)
        if (run := collector.run(checkpoint, production))
    ]
    nights = [
        night
        for manifest in shelf.list("revalidation")
        if (night := collector.record(manifest, "revalidation.json", Revalidation))
    ]
    return Findings(
        runs=tuple(reversed(runs)),
        nights=tuple(sorted(nights, key=lambda night: night.began)),
        unreadable=tuple(shelf.faults),
        price=price,
    )


class _Collector:
    """Finds what belongs to a run, and remembers what runs share."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._shards = {manifest.digest: manifest for manifest in shelf.list("shards")}
        self._datasets = {manifest.digest: manifest for manifest in shelf.list("dataset")}
        self._logs = self._grouped("training-log", lambda m: m.params["run"])
        self._evaluations = self._grouped("evaluation", lambda m: m.inputs["checkpoint"])
        self._promotions = self._grouped("promotion", lambda m: m.inputs["candidate"])
        self._data: dict[str, DataFacts | None] = {}
        self._used: set[str] = set()

    def run(self, checkpoint: Manifest, production: Ref | None) -> TrainedRun | None:
        """Whatever is sound of a run; None if its checkpoint's state is not."""
        state = self.record(checkpoint, "state.json", Checkpoint)
        if state is None:
            return None
        return self._shelf.attempt(
            address(checkpoint), lambda: self._run(checkpoint, state, production)
        )

    def record(self, manifest: Manifest, name: str, model: type[R]) -> R | None:
        """A record of an artifact; None, and a row, if the artifact should have it and doesn't."""

        place = self._shelf.records(manifest)
        if place is None:
            return None
        return self._shelf.attempt(
            f"{address(manifest)}/{name}", lambda: read_record(place / name, model)
        )

    def say_unfinished(self, checkpoints: set[str]) -> None:
        """A row for each training that left a log and no checkpoint."""
        for run, logs in self._logs.items():
            if run not in checkpoints:
                what = f"its log {logs[0].key[:12]} is there, its checkpoint is not"
                self._shelf.fault(f"checkpoint/{run}", what)

    def _run(self, checkpoint: Manifest, state: Checkpoint, production: Ref | None) -> TrainedRun:
        is_production = production is not None and production.digest == checkpoint.digest
        evaluated = newest(self._evaluations.get(checkpoint.digest, ()))
        log = newest(self._logs.get(checkpoint.key, ()))
        shards = self._shards.get(checkpoint.inputs.get("shards", ""))
        promoted = newest(self._promotions.get(evaluated.digest, ())) if evaluated else None
        data = self._data_of(shards)
        made = {
            "stage": self._datasets.get(shards.inputs.get("dataset", "")) if shards else None,
            "convert": shards,
            "train": checkpoint,
            "validate": evaluated,
            "promote": promoted,
        }
        counts = self._counts(evaluated, state.run.recipe.image_resize) if evaluated else []
        first = (
            counts[0] if counts and counts[0].resolution == state.run.recipe.image_resize else None
        )
        return TrainedRun(
            run=checkpoint.key,
            created=_created(checkpoint)[0],
            recipe=state.run.recipe.model_copy(update={"name": _name(log)}),
            model=state.run.recipe.model,
            params=state.num_params,
            classes=state.run.classes,
            world_size=state.run.world_size,
            global_batch_size=state.run.global_batch_size,
            device_target=state.run.device_target,
            mindspore=state.run.mindspore,
            software=_software(checkpoint, evaluated, state.run.mindspore),
            steps=state.step,
            evaluation=first,
            other_resolutions=tuple(counts[1:] if first else counts),
            log=self._lines(log),
            stages=self._stages(made),
            data=data,
            checkpoint_digest=checkpoint.digest,
            is_production=is_production,
            suspect=(production.suspect or "") if production and is_production else "",
            **self._findings(evaluated),
            promotion=self.record(promoted, "promotion.json", Promotion) if promoted else None,
        )

    def _counts(self, evaluated: Manifest, side: int) -> list[Evaluation]:
        """Of all resolutions, the recipe's first; none if checks of the checkpoint failed."""
        names = [entry.path for entry in evaluated.files]
        others = sorted(name for name in names if OTHER_RESOLUTION.fullmatch(name))
        records = (
            self.record(evaluated, name, Evaluation)
            for name in (*(name for name in names if name == "evaluation.json"), *others)
        )
        found = [record for record in records if record is not None]
        return sorted(found, key=lambda each: (each.resolution != side, each.resolution))

    def _findings(self, evaluated: Manifest | None) -> dict[str, Any]:
        """What an evaluation tells beside its counts, as fields of a run."""
        if evaluated is None:
            return {}
        digests = {entry.path: entry.sha256 for entry in evaluated.files}
        fields: dict[str, Any] = {}
        if "checks.json" in digests:
            checks = self.record(evaluated, "checks.json", CheckpointChecks)
            fields["checks"] = checks.checks if checks else ()
        if "attention.json" in digests:
            attention = self.record(evaluated, "attention.json", Attention)
            if attention and _agrees(attention):
                fields["attention"] = attention
            elif attention:
                what = "units have other numbers of differences than there are scales"
                self._shelf.fault(f"{address(evaluated)}/attention.json", what)
        if "examples.json" in digests:
            listed = self.record(evaluated, "examples.json", Examples)
            fields["examples"] = tuple(
                ShownExample(example=example, sha256=digests[example.file])
                for example in (listed.examples if listed else ())
                if example.file in digests
            )
        return fields

    def _lines(self, log: Manifest | None) -> tuple[dict[str, Any], ...]:
        if log is None:
            return ()
        place = self._shelf.records(log)
        if place is None:
            return ()
        what = f"{address(log)}/metrics.jsonl"
        content = self._shelf.attempt(what, (place / "metrics.jsonl").read_bytes)
        lines, fault = read_log(content or b"")
        if fault:
            self._shelf.fault(what, fault)
        return lines

    def _data_of(self, shards: Manifest | None) -> DataFacts | None:
        if shards is None:
            return None
        if shards.digest not in self._data:
            record = self.record(shards, "shards.json", Shards)
            self._data[shards.digest] = (
                DataFacts(
                    source=record.dataset.source,
                    digest=record.dataset.samples_digest,
                    shards=shards.digest,
                    splits=record.dataset.splits,
                    quarantined=(*record.dataset.quarantined, *record.quarantined),
                )
                if record
                else None
            )
        return self._data[shards.digest]

    def _stages(self, made: Mapping[str, Manifest | None]) -> tuple[StageTime, ...]:
        stage_of = {manifest.digest: stage for stage, manifest in made.items() if manifest}
        stages = []
        for stage, manifest in made.items():
            if manifest is None:
                continue
            seconds = manifest.provenance.get("seconds")
            stages.append(
                StageTime(
                    stage=stage,
                    seconds=float(seconds) if isinstance(seconds, int | float) else None,
                    artifact=address(manifest),
                    digest=manifest.digest,
                    num_bytes=num_bytes(manifest),
                    inputs=tuple(
                        stage_of[digest]
                        for _, digest in sorted(manifest.inputs.items())
                        if digest in stage_of
                    ),
                    reused=address(manifest) in self._used,
                )
            )
            self._used.add(address(manifest))
        return tuple(stages)

    def _grouped(self, kind: str, by: Callable[[Manifest], object]) -> Groups:
        groups: dict[str, list[Manifest]] = {}
        for manifest in self._shelf.list(kind):
            try:
                groups.setdefault(str(by(manifest)), []).append(manifest)
            except KeyError as error:
                self._shelf.fault(address(manifest), f"its manifest does not name {error}")
        return groups


def read_record(path: Path, model: type[R]) -> R:
    """A record, without the path in what is said of a fault: a report names the artifact."""
    try:
        return model.read(path)
    except UserError as error:
        raise UserError(str(error).replace(f"{path} ", "")) from None


def _agrees(attention: Attention) -> bool:
    return all(len(unit.differences) == len(attention.scales) for unit in attention.units)


def _created(manifest: Manifest) -> tuple[str, str]:
    """Time and key: an order."""
    return str(manifest.provenance.get("created", "")), manifest.key


def _name(log: Manifest | None) -> str:
    return str(log.params.get("recipe_name", "recipe")) if log else "recipe"


def _software(checkpoint: Manifest, evaluated: Manifest | None, mindspore: str) -> dict[str, str]:
    """Versions by name: what training recorded, and what else evaluation did."""
    versions = {"mindspore": mindspore}
    if python := checkpoint.provenance.get("python"):
        versions["python"] = str(python)
    if evaluated:
        for name, value in evaluated.params.items():
            if name == "mindspore" and value == mindspore:
                continue
            if name in ("mindspore", "device_target"):
                versions[f"{name} of the evaluation"] = str(value)
            else:
                versions[name] = str(value)
    return versions
