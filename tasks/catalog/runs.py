"""All runs and revalidations of a store, for a report, and what of them can't be read."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.artifacts import Artifact, ArtifactStore, Manifest, Ref, StoreError
from infra.base.progress import work
from sknet.records import (
    Attention,
    Checkpoint,
    CheckpointChecks,
    Dataset,
    Evaluation,
    Examples,
    Promotion,
    Revalidation,
    Shards,
)
from sknet.records.calibration import CALIBRATION_FILE, Calibration
from sknet.records.data import INDEX_FILE, SHARDS_FILE
from sknet.records.evaluation import ATTENTION_FILE, CHECKS_FILE, EVALUATION_FILE, EXAMPLES_FILE
from sknet.records.training import METRICS_FILE, STATE_FILE
from sknet.report import DataFacts, ReportContents, ShownExample, TaskOutput, TrainedRun
from sknet.report.contents import DataSetFacts, MeasuredSample, read_log
from sknet.report.data_contents import (
    MEASURES_FILE,
    copy_kinds,
    keys_with_pictures,
    picture_name,
    shown_copies,
)
from sknet.report.data_section import measured_table
from tasks.catalog.production import PRODUCTION, created_at, newest
from tasks.catalog.reading import StoreReader, name_of

MAX_THUMBNAIL_BYTES = 64 * 1024
"""Largest thumbnail that a page shows, as it shows dozens of them."""

OTHER_RESOLUTION = re.compile(r"evaluation-\d+\.json")
"""Name of the counts at another resolution than the recipe's own."""


def collect(store: ArtifactStore, *, price: float | None = None) -> ReportContents:
    """Return every run of a store with all that is recorded of it, and all revalidations.

    Args:
        store: The store to read.
        price: Price of a device-hour, in whatever currency.
    """
    reader = StoreReader(store)
    collector = _Collector(reader)
    checkpoints = reader.manifests("checkpoint")
    production = reader.attempt(f"refs/{PRODUCTION}.json", lambda: store.refs.get(PRODUCTION))
    collector.list_unfinished({checkpoint.key for checkpoint in checkpoints})
    runs = []
    with work(f"reading {len(checkpoints)} runs", len(checkpoints)) as count:
        # Of several runs with the same artifact, the earliest has made it.
        for checkpoint in sorted(checkpoints, key=lambda each: (created_at(each), each.key)):
            if run := collector.run(checkpoint, production):
                runs.append(run)
            count(1)
    revalidations = [
        revalidation
        for manifest in reader.manifests("revalidation")
        if (revalidation := reader.record(manifest, "revalidation.json", Revalidation))
    ]
    return ReportContents(
        runs=tuple(reversed(runs)),
        data_sets=tuple(reversed(collector.data_sets.values())),
        revalidations=tuple(sorted(revalidations, key=lambda each: each.began)),
        unreadable=tuple(reader.unreadable),
        price=price,
    )


def evaluation_of(store: ArtifactStore, run: TrainedRun) -> Artifact:
    """Return the artifact of a run's evaluation.

    Raises:
        StoreError: The run was not evaluated, or the artifact is damaged.
    """
    for output in run.tasks:
        if output.task == "validate":
            kind, _, key = output.artifact.partition("/")
            return store.load(kind, key)
    raise StoreError(f"run {run.short_key} is not evaluated")


def thumbnails(
    store: ArtifactStore, runs: Iterable[TrainedRun], data_sets: Iterable[DataSetFacts] = ()
) -> dict[str, bytes]:
    """Return pictures by SHA-256, without those that are damaged.

    Args:
        store: The store.
        runs: Runs of whose examples thumbnails are wanted.
        data_sets: Data sets of whose copies and suspects pictures are wanted.
    """
    pictures: dict[str, bytes] = {}
    for run in runs:
        for shown in run.examples:
            with suppress(StoreError, OSError):
                path = evaluation_of(store, run).path(shown.example.file)
                pictures |= _picture(path, shown.sha256)
    for data in data_sets:
        for key, sha256 in data.pictures.items():
            with suppress(StoreError, OSError):
                artifact = store.load(*data.pictured_in.split("/", 1))
                pictures |= _picture(artifact.path(picture_name(key)), sha256)
    return pictures


def _picture(path: Path, sha256: str) -> dict[str, bytes]:
    """Return the content of a file by its SHA-256; nothing if it is too large or damaged."""
    if path.stat().st_size > MAX_THUMBNAIL_BYTES:
        return {}
    content = path.read_bytes()
    return {sha256: content} if hashlib.sha256(content).hexdigest() == sha256 else {}


class _Collector:
    """Finds what belongs to a run. What several runs share is read once."""

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self._shards = {manifest.digest: manifest for manifest in reader.manifests("shards")}
        self._datasets = {manifest.digest: manifest for manifest in reader.manifests("dataset")}
        self._surveys = self._grouped("survey", lambda m: m.inputs["dataset"])
        self._logs = self._grouped("training-log", lambda m: m.params["run"])
        self._evaluations = self._grouped("evaluation", lambda m: m.inputs["checkpoint"])
        self._promotions = self._grouped("promotion", _judged)
        self._data: dict[str, DataFacts | None] = {}
        self.data_sets: dict[str, DataSetFacts] = {}
        self._used: set[str] = set()

    def run(self, checkpoint: Manifest, production: Ref | None) -> TrainedRun | None:
        """Return all of a run that can be read; None if its checkpoint's state can't."""
        state = self._reader.record(checkpoint, STATE_FILE, Checkpoint)
        if state is None:
            return None
        return self._reader.attempt(
            name_of(checkpoint), lambda: self._run(checkpoint, state, production)
        )

    def list_unfinished(self, checkpoints: set[str]) -> None:
        """List each training that left a log and no checkpoint."""
        for run, logs in self._logs.items():
            if run not in checkpoints:
                self._reader.report(
                    f"checkpoint/{run}",
                    f"its log {logs[0].key[:12]} is there, its checkpoint is not",
                )

    def _run(self, checkpoint: Manifest, state: Checkpoint, production: Ref | None) -> TrainedRun:
        is_production = production is not None and production.digest == checkpoint.digest
        evaluated = newest(self._evaluations.get(checkpoint.digest, ()))
        log = newest(self._logs.get(checkpoint.key, ()))
        shards = self._shards.get(checkpoint.inputs.get("shards", ""))
        # The evaluation on which it was judged may be an older one than the newest.
        promotion = newest(self._promotions.get(checkpoint.digest, ()))
        data = self._data_of(shards)
        made = {
            "stage": self._datasets.get(shards.inputs.get("dataset", "")) if shards else None,
            "convert": shards,
            "train": checkpoint,
            "validate": evaluated,
            "promote": promotion,
        }
        side = state.run.recipe.image_resize
        counts = self._counts(evaluated, side) if evaluated else []
        first = counts[0] if counts and counts[0].resolution == side else None
        return TrainedRun(
            key=checkpoint.key,
            created=created_at(checkpoint),
            recipe=state.run.recipe.model_copy(update={"name": _recipe_name(log)}),
            model=state.run.recipe.model,
            params=state.num_params,
            classes=state.run.classes,
            world_size=state.run.world_size,
            global_batch_size=state.run.global_batch_size,
            device_target=state.run.device_target,
            mindspore=state.run.mindspore,
            machine=_machine(checkpoint),
            processor=_text_of(checkpoint, "processor"),
            load=_load(checkpoint),
            software=_software(checkpoint, evaluated, state.run.mindspore),
            steps=state.step,
            evaluation=first,
            other_resolutions=tuple(counts[1:] if first else counts),
            log=self._lines(log),
            tasks=self._outputs(made),
            data=data,
            checkpoint_digest=checkpoint.digest,
            is_production=is_production,
            suspect=(production.suspect or "") if production and is_production else "",
            **self._findings(evaluated),
            promotion=(
                self._reader.record(promotion, "promotion.json", Promotion) if promotion else None
            ),
        )

    def _counts(self, evaluated: Manifest, side: int) -> list[Evaluation]:
        """Return the counts at all resolutions, the recipe's first; none if a check failed."""
        names = [entry.path for entry in evaluated.files]
        others = sorted(name for name in names if OTHER_RESOLUTION.fullmatch(name))
        records = (
            self._reader.record(evaluated, name, Evaluation)
            for name in (*(name for name in names if name == EVALUATION_FILE), *others)
        )
        found = [record for record in records if record is not None]
        return sorted(found, key=lambda each: (each.resolution != side, each.resolution))

    def _findings(self, evaluated: Manifest | None) -> dict[str, Any]:
        """Return what an evaluation has beside its counts, as fields of a run."""
        if evaluated is None:
            return {}
        digests = {entry.path: entry.sha256 for entry in evaluated.files}
        fields: dict[str, Any] = {}
        if CHECKS_FILE in digests:
            checks = self._reader.record(evaluated, CHECKS_FILE, CheckpointChecks)
            fields["checks"] = checks.checks if checks else ()
        if ATTENTION_FILE in digests:
            attention = self._reader.record(evaluated, ATTENTION_FILE, Attention)
            if attention and _is_consistent(attention):
                fields["attention"] = attention
            elif attention:
                self._reader.report(
                    f"{name_of(evaluated)}/{ATTENTION_FILE}",
                    "units have other numbers of differences than there are scales",
                )
        if CALIBRATION_FILE in digests:
            fields["calibration"] = self._reader.record(evaluated, CALIBRATION_FILE, Calibration)
        if EXAMPLES_FILE in digests:
            listed = self._reader.record(evaluated, EXAMPLES_FILE, Examples)
            fields["examples"] = tuple(
                ShownExample(example=example, sha256=digests[example.file])
                for example in (listed.examples if listed else ())
                if example.file in digests
            )
        return fields

    def _lines(self, log: Manifest | None) -> tuple[dict[str, Any], ...]:
        directory = self._reader.directory(log) if log else None
        if log is None or directory is None:
            return ()
        name = f"{name_of(log)}/{METRICS_FILE}"
        content = self._reader.attempt(name, (directory / METRICS_FILE).read_bytes)
        lines, fault = read_log(content or b"")
        if fault:
            self._reader.report(name, fault)
        return lines

    def _data_of(self, shards: Manifest | None) -> DataFacts | None:
        if shards is None:
            return None
        if shards.digest not in self._data:
            record = self._reader.record(shards, SHARDS_FILE, Shards)
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
            if record:
                self._note_data_set(shards, record)
        return self._data[shards.digest]

    def _note_data_set(self, shards: Manifest, record: Shards) -> None:
        """Keep what a report shows of a data set; the one of the newest run comes last."""
        digest = record.dataset.samples_digest
        known = self.data_sets.pop(digest, None) or self._data_set(shards, record)
        self.data_sets[digest] = known

    def _data_set(self, shards: Manifest, record: Shards) -> DataSetFacts:
        dataset = record.dataset
        staged = self._datasets.get(shards.inputs.get("dataset", ""))
        survey = newest(self._surveys.get(staged.digest, ())) if staged else None
        measured = self._measured(survey) if survey else ()
        digests = {entry.path: entry.sha256 for entry in survey.files} if survey else {}
        return DataSetFacts(
            digest=dataset.samples_digest,
            source=dataset.source,
            splits=dataset.splits,
            titles=dataset.titles,
            num_left_out=len(dataset.quarantined) + len(record.quarantined),
            class_counts=self._class_counts(staged, dataset) if staged else {},
            leaked={split: len(dataset.leaked(split)) for split in dataset.splits},
            num_copies={kind.name: kind.num_groups for kind in copy_kinds(dataset.copies)},
            copies=shown_copies(dataset.copies),
            measured=measured,
            pictures={
                key: digests[picture_name(key)]
                for key in keys_with_pictures(measured_table(measured), dataset.copies)
                if picture_name(key) in digests
            },
            pictured_in=name_of(survey) if survey else "",
        )

    def _measured(self, survey: Manifest) -> tuple[MeasuredSample, ...]:
        """Return what staging measured of some images."""

        def read() -> tuple[MeasuredSample, ...]:
            import pandas as pd

            path = self._reader.bring(survey, [MEASURES_FILE]) / MEASURES_FILE
            rows = pd.read_parquet(path).to_dict("records")
            return tuple(MeasuredSample.model_validate(row) for row in rows)

        return self._reader.attempt(f"{name_of(survey)}/{MEASURES_FILE}", read) or ()

    def _class_counts(self, staged: Manifest, dataset: Dataset) -> dict[str, tuple[int, ...]]:
        """Return the number of samples by split and label, as the index of the samples says."""
        if not any(entry.path == INDEX_FILE for entry in staged.files):
            return {}
        name = f"{name_of(staged)}/{INDEX_FILE}"
        return self._reader.attempt(name, lambda: self._counted(staged, dataset)) or {}

    def _counted(self, staged: Manifest, dataset: Dataset) -> dict[str, tuple[int, ...]]:
        import pandas as pd

        path = self._reader.bring(staged, [INDEX_FILE]) / INDEX_FILE
        index = pd.read_parquet(path, columns=["split", "label"])
        counts = index.groupby("split")["label"].value_counts()
        return {
            split: tuple(int(counts.get((split, label), 0)) for label in range(len(dataset.titles)))
            for split in dataset.splits
        }

    def _outputs(self, made: Mapping[str, Manifest | None]) -> tuple[TaskOutput, ...]:
        """Return what each task made, in their order, given the artifacts by task."""
        maker_of = {manifest.digest: task for task, manifest in made.items() if manifest}
        outputs = []
        for task, manifest in made.items():
            if manifest is None:
                continue
            name = name_of(manifest)
            seconds = manifest.provenance.get("seconds")
            outputs.append(
                TaskOutput(
                    task=task,
                    seconds=float(seconds) if isinstance(seconds, int | float) else None,
                    artifact=name,
                    digest=manifest.digest,
                    num_bytes=sum(entry.size for entry in manifest.files),
                    inputs=tuple(
                        maker_of[digest]
                        for _, digest in sorted(manifest.inputs.items())
                        if digest in maker_of
                    ),
                    reused=name in self._used,
                )
            )
            self._used.add(name)
        return tuple(outputs)

    def _grouped(self, kind: str, by: Callable[[Manifest], object]) -> Mapping[str, list[Manifest]]:
        groups: dict[str, list[Manifest]] = {}
        for manifest in self._reader.manifests(kind):
            try:
                groups.setdefault(str(by(manifest)), []).append(manifest)
            except KeyError as error:
                self._reader.report(name_of(manifest), f"its manifest does not name {error}")
        return groups


def _judged(promotion: Manifest) -> object:
    """Return the digest of the checkpoint that a promotion judged."""
    return promotion.params["checkpoint"]


def _is_consistent(attention: Attention) -> bool:
    return all(len(unit.differences) == len(attention.scales) for unit in attention.units)


def _recipe_name(log: Manifest | None) -> str:
    return str(log.params.get("recipe_name", "recipe")) if log else "recipe"


def _text_of(manifest: Manifest, name: str) -> str:
    value = manifest.provenance.get(name)
    return value if isinstance(value, str) else ""


def _machine(checkpoint: Manifest) -> str:
    """Return what tells the machine of a training from others, but isn't its name."""
    name = _text_of(checkpoint, "host")
    return hashlib.sha256(name.encode()).hexdigest()[:8] if name else ""


def _load(checkpoint: Manifest) -> float | None:
    """Return the load by others during a training, if the checkpoint's manifest has it.

    What earlier versions recorded as `load` counts the run's own conversion too.
    """
    value = checkpoint.provenance.get("load_by_others")
    return float(value) if isinstance(value, int | float) and 0 <= value < math.inf else None


def _software(checkpoint: Manifest, evaluated: Manifest | None, mindspore: str) -> dict[str, str]:
    """Return versions by name: those of the training, and those that the evaluation adds."""
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
