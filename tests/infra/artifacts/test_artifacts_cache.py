"""A host's copies of artifacts: fetched once, verified, within the limit."""

import hashlib
import threading
from pathlib import Path

import pytest
from artifact_examples import CONTEXT, another_process, make_spec

from infra.artifacts import FileEntry, Manifest
from infra.artifacts.cache import Cache, CacheFullError
from infra.base.progress import Count
from infra.base.verified import FileStatus, read_verified, write_verified

NUM_BYTES = 52
"""Total size of the files of each artifact."""


def manifest_of(seed: int, files: dict[str, bytes]) -> Manifest:
    entries = [
        FileEntry(path=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    ]
    return Manifest.describe(make_spec(seed), entries, stats={}, provenance={})


def contents(seed: int) -> dict[str, bytes]:
    return {"index": b"i" * 10 + bytes([seed]), "shards/0": b"s" * 40 + bytes([seed])}


class Remote:
    """Downloads files from a dictionary, and lists which."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.fetched: list[str] = []

    def __call__(self, entry: FileEntry, path: Path, count: Count) -> None:
        self.fetched.append(entry.path)
        path.write_bytes(self.files[entry.path])
        count(entry.size)


def fetch(cache: Cache, seed: int, *names: str) -> list[str]:
    """Make files available, and return the names of those that were downloaded."""
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
    assert fetch(cache, 0, "index") == ["index"]
    assert not (directory_of(cache, 0) / "shards").exists()
    assert fetch(cache, 0) == ["shards/0"]
    assert fetch(Cache(tmp_path), 0) == []


def test_a_changed_copy_is_fetched_again_and_a_touched_one_is_not(tmp_path):
    cache = Cache(tmp_path)
    fetch(cache, 0)
    (directory_of(cache, 0) / "index").write_bytes(b"I" * 11)
    (directory_of(cache, 0) / "shards/0").touch()
    assert fetch(cache, 0) == ["index"]


def change_behind_the_memory(cache: Cache, seed: int, name: str) -> Path:
    """Damage a file, and let the cache believe that it verified the file as it is now."""
    path = directory_of(cache, seed) / name
    path.write_bytes(bytes(path.stat().st_size))
    digest = manifest_of(seed, contents(seed)).digest
    memory = directory_of(cache, seed).parent / "verified.json"
    write_verified(memory, digest, {name: FileStatus.of(path.stat())})
    return path


def test_a_file_that_was_verified_is_not_read_again(tmp_path):
    cache = Cache(tmp_path)
    fetch(cache, 0)
    change_behind_the_memory(cache, 0, "index")
    manifest, remote = manifest_of(0, contents(0)), Remote(contents(0))
    cache.fetch(manifest, manifest.files, remote)
    assert remote.fetched == []


def test_a_file_that_has_settled_is_remembered_as_verified(tmp_path, monkeypatch):
    monkeypatch.setattr("infra.base.verified.SETTLED_NS", -(10**12))
    cache = Cache(tmp_path)
    fetch(cache, 0)
    manifest = manifest_of(0, contents(0))
    verified = read_verified(directory_of(cache, 0).parent / "verified.json", manifest.digest)
    assert verified.keys() == {"index", "shards/0"}


def test_no_file_is_trusted_unread_after_a_restart_of_the_machine(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    fetch(cache, 0)
    # As after a power cut: the name and the size are on disk, the content is not.
    change_behind_the_memory(cache, 0, "index")
    monkeypatch.setattr("infra.base.verified.boot_id", lambda: "another start")
    assert fetch(cache, 0) == ["index"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"boot": 1}'])
def test_a_damaged_memory_of_verified_files_costs_only_another_look_at_them(tmp_path, content):
    cache = Cache(tmp_path)
    fetch(cache, 0)
    (directory_of(cache, 0).parent / "verified.json").write_bytes(content)
    assert fetch(cache, 0) == []


def test_a_fetch_that_fails_leaves_nothing_behind(tmp_path):
    manifest = manifest_of(0, contents(0))

    def fail(entry: FileEntry, path: Path, count: Count) -> None:
        path.write_bytes(b"half")
        raise OSError("the connection broke")

    with pytest.raises(OSError, match="the connection broke"):
        Cache(tmp_path).fetch(manifest, manifest.files, fail)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".use"] == []


def leave(root: Path, limit: int, seed: int) -> None:
    fetch(Cache(root, limit), seed)


def in_a_process_that_ends(root: Path, limit: int, seed: int) -> int:
    process = another_process(leave, root, limit, seed)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def cached(root: Path) -> set[int]:
    return {seed for seed in range(9) if directory_of(Cache(root), seed).exists()}


def test_the_least_recently_used_goes_first_when_the_limit_is_reached(tmp_path):
    for seed in (0, 1, 2, 0, 3):
        assert in_a_process_that_ends(tmp_path, 3 * NUM_BYTES, seed) == 0
    assert cached(tmp_path) == {0, 2, 3}


def test_files_in_use_are_not_evicted_and_a_cache_full_of_them_is_refused_in_one_line(tmp_path):
    cache = Cache(tmp_path, 2 * NUM_BYTES)
    for seed in (0, 1):
        fetch(cache, seed)
    with pytest.raises(CacheFullError, match=r"needs 52 bytes .* raise SKNET_CACHE_GB") as caught:
        fetch(cache, 2)
    assert "\n" not in str(caught.value)
    assert fetch(cache, 0) == fetch(cache, 1) == []


def fetch_together(root: Path, results) -> None:
    cache = Cache(root)
    fetched: list[str] = []
    threads = [
        threading.Thread(target=lambda: fetched.extend(fetch(cache, 0)), daemon=True)
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(fetched)


def test_processes_and_threads_that_need_the_same_fetch_it_once(tmp_path):
    results = CONTEXT.Queue()
    processes = [another_process(fetch_together, tmp_path, results) for _ in range(4)]
    for process in processes:
        process.start()
    fetched = [name for _ in processes for name in results.get(timeout=600)]
    assert sorted(fetched) == ["index", "shards/0"]


def test_a_check_reads_every_copy_and_fetches_damaged_ones_again(tmp_path):
    cache = Cache(tmp_path)
    manifest = manifest_of(0, contents(0))
    assert cache.check(manifest, Remote({})) == ()
    fetch(cache, 0, "shards/0")
    path = change_behind_the_memory(cache, 0, "shards/0")
    remote = Remote(contents(0))

    (damage,) = cache.check(manifest, remote)

    assert (damage.path, damage.problem) == ("shards/0", "sha256")
    assert remote.fetched == ["shards/0"]
    assert path.read_bytes() == contents(0)["shards/0"]
    (aside,) = tmp_path.glob(".damaged/*/shards/0")
    assert aside.read_bytes() == bytes(41)
    assert cache.check(manifest, remote) == ()
    assert fetch(cache, 0, "shards/0") == []
