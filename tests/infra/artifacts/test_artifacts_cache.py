"""What a host keeps of a remote store: fetched once, checked, within its limit."""

import hashlib
import os
import threading
from pathlib import Path

import pytest
from artifact_examples import CONTEXT, another_process, make_spec

from infra.artifacts import FileEntry, Manifest
from infra.artifacts.cache import Cache, CacheFullError

NUM_BYTES = 52
"""Of the files of each artifact."""


def manifest_of(seed: int, files: dict[str, bytes]) -> Manifest:
    entries = [
        FileEntry(path=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    ]
    return Manifest.describe(make_spec(seed), entries, stats={}, provenance={})


def contents(seed: int) -> dict[str, bytes]:
    return {"index": b"i" * 10 + bytes([seed]), "shards/0": b"s" * 40 + bytes([seed])}


class Remote:
    """Hands out files and counts how often."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.fetched: list[str] = []

    def __call__(self, entry: FileEntry, path: Path) -> None:
        self.fetched.append(entry.path)
        path.write_bytes(self.files[entry.path])


def bring(cache: Cache, seed: int, *names: str) -> list[str]:
    """Return the names that had to be fetched."""
    remote = Remote(contents(seed))
    manifest = manifest_of(seed, contents(seed))
    wanted = tuple(entry for entry in manifest.files if entry.path in names or not names)
    directory = cache.fetch(manifest, wanted, remote)
    for entry in wanted:
        assert (directory / entry.path).read_bytes() == contents(seed)[entry.path]
    return sorted(remote.fetched)


def directory_of(cache: Cache, seed: int) -> Path:
    return cache.root / manifest_of(seed, contents(seed)).digest / "files"


def test_each_file_is_fetched_once_and_those_that_nobody_asked_for_never(tmp_path):
    cache = Cache(tmp_path)
    assert bring(cache, 0, "index") == ["index"]
    assert not (directory_of(cache, 0) / "shards").exists()
    assert bring(cache, 0) == ["shards/0"]
    assert bring(Cache(tmp_path), 0) == []


def test_what_was_changed_here_is_fetched_again_and_what_was_only_touched_is_not(tmp_path):
    cache = Cache(tmp_path)
    bring(cache, 0)
    (directory_of(cache, 0) / "index").write_bytes(b"I" * 11)
    (directory_of(cache, 0) / "shards/0").touch()
    assert bring(cache, 0) == ["index"]


def test_nothing_is_trusted_unread_after_the_machine_went_down(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    bring(cache, 0)
    path = directory_of(cache, 0) / "index"
    before = path.stat()
    # As after a power cut: the name and the size are on disk, the content is not.
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    monkeypatch.setattr("infra.artifacts.cache.boot_id", lambda: "another start")
    assert bring(cache, 0) == ["index"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"boot": 1}'])
def test_a_damaged_record_of_what_was_verified_costs_a_look_at_the_files_only(tmp_path, content):
    cache = Cache(tmp_path)
    bring(cache, 0)
    (directory_of(cache, 0).parent / "verified.json").write_bytes(content)
    assert bring(cache, 0) == []


def test_a_fetch_that_fails_leaves_nothing_behind(tmp_path):
    manifest = manifest_of(0, contents(0))

    def fail(entry: FileEntry, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("the connection broke")

    with pytest.raises(OSError, match="the connection broke"):
        Cache(tmp_path).fetch(manifest, manifest.files, fail)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".use"] == []


def leave(root: Path, limit: int, seed: int) -> None:
    bring(Cache(root, limit), seed)


def in_a_process_that_ends(root: Path, limit: int, seed: int) -> int:
    process = another_process(leave, root, limit, seed)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def kept(root: Path) -> set[int]:
    return {seed for seed in range(9) if directory_of(Cache(root), seed).exists()}


def test_the_least_recently_used_goes_first_when_the_limit_is_reached(tmp_path):
    for seed in (0, 1, 2, 0, 3):
        assert in_a_process_that_ends(tmp_path, 3 * NUM_BYTES, seed) == 0
    assert kept(tmp_path) == {0, 2, 3}


def test_what_a_process_uses_stays_and_a_cache_full_of_that_is_refused_in_one_line(tmp_path):
    cache = Cache(tmp_path, 2 * NUM_BYTES)
    for seed in (0, 1):
        bring(cache, seed)
    with pytest.raises(CacheFullError, match=r"needs 52 bytes .* raise SKNET_CACHE_GB") as caught:
        bring(cache, 2)
    assert "\n" not in str(caught.value)
    assert bring(cache, 0) == bring(cache, 1) == []


def bring_many(root: Path, results) -> None:
    cache = Cache(root)
    fetched: list[str] = []
    threads = [
        threading.Thread(target=lambda: fetched.extend(bring(cache, 0)), daemon=True)
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(fetched)


def test_processes_and_threads_that_need_the_same_fetch_it_once(tmp_path):
    results = CONTEXT.Queue()
    processes = [another_process(bring_many, tmp_path, results) for _ in range(4)]
    for process in processes:
        process.start()
    fetched = [name for _ in processes for name in results.get(timeout=60)]
    assert sorted(fetched) == ["index", "shards/0"]


def test_a_check_reads_what_is_here_whole_and_fetches_again_what_rotted(tmp_path):
    cache = Cache(tmp_path)
    manifest = manifest_of(0, contents(0))
    assert cache.check(manifest, Remote({})) == ()
    bring(cache, 0, "shards/0")
    path = directory_of(cache, 0) / "shards/0"
    times = path.stat()
    path.write_bytes(b"S" + contents(0)["shards/0"][1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    remote = Remote(contents(0))
    directory = cache.fetch(manifest, manifest.files[1:], remote)
    assert remote.fetched == [], "a status that is the same is trusted"
    assert (directory / "shards/0").read_bytes()[:1] == b"S"

    (damage,) = cache.check(manifest, remote)

    assert (damage.path, damage.problem) == ("shards/0", "sha256")
    assert remote.fetched == ["shards/0"]
    assert path.read_bytes() == contents(0)["shards/0"]
    (aside,) = tmp_path.glob(".damaged/*/shards/0")
    assert aside.read_bytes()[:1] == b"S"
    assert cache.check(manifest, remote) == ()
    assert bring(cache, 0, "shards/0") == []
