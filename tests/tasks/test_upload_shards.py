"""Conversion by processes that share no directory, into a store on S3, equals a local one."""

import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path

import pytest

from infra.artifacts import BuildOutput, Resolution, digest_of, opening, resolve
from infra.artifacts.s3 import S3Store
from infra.s3 import STANDARD, Bucket
from sknet.data.conversion.converter import ConvertedShard, ShardConverter
from sknet.data.conversion.outputs import TemporaryDirectories
from sknet.data.conversion.plan import ShardPlan, plan_digest, plan_shards, shard_counts
from sknet.data.conversion.progress import ConversionProgress
from sknet.data.conversion.uploading import upload_shards
from sknet.data.staging import Staged
from tasks.catalog.specs import shards_spec
from tasks.convert import output_of_uploads
from tests.processes import PYTHONPATH
from tests.refusals import refusal
from tests.sknet.conversions import contents, convert, in_this_process, stage
from tests.store_roots import S3Root
from tests.tiny_pipeline import write_images
from tests.waiting import wait_for

NUM_SHARDS = 3
"""Of each split."""
SPEC = shards_spec("0" * 64, NUM_SHARDS, None)
PREFIX = f"shards/{SPEC.key}/"
NOTES = f".work/shards/{SPEC.key}/finished/"


@pytest.fixture
def root(tmp_path: Path, s3_server: object, monkeypatch: pytest.MonkeyPatch) -> S3Root:
    monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "cache"))
    return S3Root(tmp_path / "hosts", profile=STANDARD)


@pytest.fixture(scope="module")
def staged(images: Path) -> Staged:
    return stage(images)


@pytest.fixture(scope="module")
def local(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards as one host writes them."""
    out = tmp_path_factory.mktemp("local")
    convert(images, out, num_shards=NUM_SHARDS)
    return out


def resolved(store: S3Store, staged: Staged, images: Path, **options: object) -> Resolution:
    """Build the artifact as the task does."""

    def build(workspace: Path) -> BuildOutput:
        settings = {"num_shards": NUM_SHARDS, "parallel_map": in_this_process, **options}
        for name in ("shards", "scratch"):
            (workspace / name).mkdir(exist_ok=True)
        uploads = store.uploads(SPEC)
        shards = upload_shards(staged, str(images), uploads, workspace / "scratch", **settings)
        output = output_of_uploads(shards, workspace / "shards")
        assert [path.name for path in output.directory.iterdir()] == ["shards.json"]
        return output

    return resolve(store, SPEC, build)


def identities(root: S3Root) -> dict[str, tuple[str, datetime]]:
    """Return what changes when a shard's object is written again."""
    listed = Bucket(root.uri).list(PREFIX)
    return {each.key.removeprefix(PREFIX): (each.etag, each.modified) for each in listed}


def use(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)


@pytest.mark.slow
def test_two_processes_that_share_no_directory_make_the_artifact_of_one_host(
    root: S3Root, staged: Staged, images: Path, local: Path, tmp_path: Path
) -> None:
    hosts = [tmp_path / "one", tmp_path / "two"]

    def on_two_hosts(
        function: Callable[[ShardPlan], ConvertedShard],
        items: Iterable[ShardPlan],
        *,
        on_tick: Callable[[], None],
    ) -> Iterator[ConvertedShard]:
        with ExitStack() as stack:
            pools = []
            for host in hosts:
                (host / "tmp").mkdir(parents=True)
                directories = {"TMPDIR": str(host / "tmp"), "SKNET_CACHE": str(host / "cache")}
                pool = ProcessPoolExecutor(
                    1,
                    mp_context=get_context("spawn"),
                    initializer=use,
                    initargs=({**directories, "PYTHONPATH": PYTHONPATH},),
                )
                pools.append(stack.enter_context(pool))
            calls = [pools[n % 2].submit(function, item) for n, item in enumerate(items)]
            for done in as_completed(calls):
                yield done.result()
                on_tick()

    store = root.host("flow")
    seen: list[ConversionProgress] = []
    resolution = resolved(store, staged, images, parallel_map=on_two_hosts, on_progress=seen.append)
    assert (seen[-1].images, seen[-1].reused_images) == (len(staged.index), 0)
    assert resolution.artifact.digest == digest_of(local)
    assert not list(root.cache("flow").rglob("*.mindrecord*")), "the flow's host has no shard"
    assert store.verify("shards", SPEC.key) == ()
    assert contents(root.host("reader").load("shards", SPEC.key).directory) == contents(local)
    assert root.paths(".work/") == []
    assert [list((host / "tmp").iterdir()) for host in hosts] == [[], []]


def convert_until_killed(root: S3Root, images: Path) -> None:
    resolved(root.host("flow"), stage(images), images)


@pytest.mark.long
def test_a_killed_conversion_is_resumed_by_another_host_from_its_finished_shards(
    root: S3Root, staged: Staged, images: Path, local: Path
) -> None:
    process = get_context("spawn").Process(target=convert_until_killed, args=(root, images))
    process.start()
    wait_for(lambda: not process.is_alive() or len(root.paths(NOTES)) >= 2, pause=0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    noted = {path.removeprefix(NOTES).removesuffix(".json") for path in root.paths(NOTES)}
    before = identities(root)

    seen: list[ConversionProgress] = []
    resolution = resolved(root.host("other"), staged, images, on_progress=seen.append)

    assert resolution.artifact.digest == digest_of(local)
    after = identities(root)
    kept = [name for name in after if name.removesuffix(".db") in noted]
    assert len(kept) == 2 * len(noted)
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert 0 < seen[-1].reused_images < seen[-1].images == len(staged.index)


@pytest.mark.parametrize("how", ["missing", "other bytes", "no note", "note of another plan"])
def test_a_shard_that_is_not_whole_in_the_store_is_made_again(
    root: S3Root, staged: Staged, images: Path, local: Path, how: str
) -> None:
    store = root.host("flow")

    class StoppedError(Exception):
        """Stands for the end of the flow after three shards."""

    def three(
        function: Callable[[ShardPlan], ConvertedShard],
        items: Iterable[ShardPlan],
        *,
        on_tick: Callable[[], None],
    ) -> Iterator[ConvertedShard]:
        del on_tick
        for number, item in enumerate(items):
            if number == 3:
                raise StoppedError
            yield function(item)

    with pytest.raises(StoppedError):
        resolved(store, staged, images, parallel_map=three)
    damaged = "train-00001-of-00003.mindrecord"
    note = f"{NOTES}{damaged}.json"
    match how:
        case "missing":
            root.remove(f"{PREFIX}{damaged}.db")
        case "other bytes":
            root.write(f"{PREFIX}{damaged}.db", root.read(f"{PREFIX}{damaged}.db")[::-1])
        case "no note":
            root.remove(note)
        case "note of another plan":
            plan = plan_digest(staged.dataset, shard_counts(staged, NUM_SHARDS), None)
            root.write(note, root.read(note).replace(plan.encode(), b"0" * 64))
    before = identities(root)
    converted: list[str] = []

    def counted(
        function: Callable[[ShardPlan], ConvertedShard],
        items: Iterable[ShardPlan],
        *,
        on_tick: Callable[[], None],
    ) -> Iterator[ConvertedShard]:
        def noted(shard: ShardPlan) -> ConvertedShard:
            converted.append(shard.name)
            return function(shard)

        yield from in_this_process(noted, items, on_tick=on_tick)

    resolution = resolved(store, staged, images, parallel_map=counted)
    assert resolution.artifact.digest == digest_of(local)
    assert damaged in converted
    assert len(converted) == 2 * NUM_SHARDS - 2
    sound = [name for name in before if not name.startswith("train-00001")]
    after = identities(root)
    assert {name: before[name] for name in sound} == {name: after[name] for name in sound}
    assert store.verify("shards", SPEC.key) == ()


def test_a_host_that_comes_back_after_the_commit_changes_nothing(
    root: S3Root, staged: Staged, images: Path, tmp_path: Path
) -> None:
    store = root.host("flow")
    late = store.uploads(SPEC).upload
    resolved(store, staged, images)
    before = identities(root)
    counts = shard_counts(staged, NUM_SHARDS)
    plan = plan_digest(staged.dataset, counts, None)
    shard = next(iter(plan_shards(staged, counts, tmp_path)))
    converted = ShardConverter(str(images), TemporaryDirectories(late), plan, None)(shard)
    assert converted.record.file.name in before
    assert identities(root) == before
    assert root.paths(".work/") == []
    assert store.verify("shards", SPEC.key) == ()


def test_a_host_that_uploads_to_another_store_is_noticed_at_its_first_shard(
    root: S3Root, staged: Staged, images: Path, tmp_path: Path
) -> None:
    other = S3Root(tmp_path / "hosts", profile=STANDARD)

    def elsewhere(
        function: Callable[[ShardPlan], ConvertedShard],
        items: Iterable[ShardPlan],
        *,
        on_tick: Callable[[], None],
    ) -> Iterator[ConvertedShard]:
        assert isinstance(function, ShardConverter)
        upload = other.host("worker").uploads(SPEC).upload
        output = TemporaryDirectories(upload)
        astray = ShardConverter(function.source, output, function.plan, function.reencoding)
        yield from in_this_process(astray, items, on_tick=on_tick)

    message = refusal(lambda: resolved(root.host("flow"), staged, images, parallel_map=elsewhere))
    assert message == (
        "a host has uploaded train-00000-of-00003.mindrecord, but it is not in the store as this "
        "host sees it: all hosts need the same AWS settings"
    )


def test_a_host_that_cannot_use_the_store_is_named_before_it_converts(
    root: S3Root, staged: Staged, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_settings(
        function: Callable[[ShardPlan], ConvertedShard],
        items: Iterable[ShardPlan],
        *,
        on_tick: Callable[[], None],
    ) -> Iterator[ConvertedShard]:
        opening._server.cache_clear()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nowhere")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))  # for shards
        return in_this_process(function, items, on_tick=on_tick)

    store = root.host("flow")
    message = refusal(lambda: resolved(store, staged, images, parallel_map=without_settings))
    assert re.match(r"on host \S+: store 's3://.*' can't be used: ", message)


def test_too_many_unreadable_images_are_refused_and_a_higher_limit_reuses_all_shards(
    root: S3Root, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images")
    (images / "val/red/00.png").write_bytes(b"no image")
    staged = stage(images, max_quarantine=1.0)
    store = root.host("flow")
    message = refusal(lambda: resolved(store, staged, images, max_quarantine=0.0))
    assert "1 of 66 samples" in message
    seen: list[ConversionProgress] = []
    resolved(store, staged, images, max_quarantine=0.1, on_progress=seen.append)
    assert seen[-1].reused_images == len(staged.index) == 66


def test_temporary_files_of_a_failed_shard_are_removed(
    root: S3Root, staged: Staged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    message = refusal(lambda: resolved(root.host("flow"), staged, tmp_path / "absent"))
    assert message.startswith("on host ")
    assert list(temporary.iterdir()) == []
