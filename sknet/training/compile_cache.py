"""Cache the compiled graph of the training step for the next start of the same training.

MindSpore's own cache finds graphs by the order in which a process compiles them, and checks little
more: with another label smoothing, or another network compiled first, it silently runs the wrong
graph. Therefore an entry of this cache belongs to a single training: its key is a digest of all
that shapes the step, including the source of this package. An entry holds one graph, is complete or
absent, and is verified before use. Each process works on its own copy, so any number of processes
may start at the same time.

An entry takes about 1 MB, and the newest `NUM_KEPT` entries are kept. If the environment sets
MS_COMPILER_CACHE_ENABLE to 0 or 1, this cache does nothing.
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import mindspore as ms

import sknet
from infra.base.files import cache_directory, file_sha256
from sknet.records import Run
from sknet.world import World

NUM_KEPT = 64
_ENABLE, _PATH = "MS_COMPILER_CACHE_ENABLE", "MS_COMPILER_CACHE_PATH"
_SUMS_FILE = "sha256.json"

_Sums = dict[str, str]
"""SHA-256 of files by their relative path."""


@contextmanager
def compile_cache(run: Run, world: World) -> Iterator[None]:
    """Take the one graph that is compiled in this context from the cache, or add it there.

    Only the first use in a process has an effect, because MindSpore reads its cache path only once.
    """
    if _ENABLE in os.environ or not _first_use():
        yield
        return
    entry = cache_directory("compiled") / f"{_key(run, world)}-{world.rank}"
    with tempfile.TemporaryDirectory(prefix="sknet-compile-") as scratch:
        copy = Path(scratch)
        fetched = _fetch(entry, copy)
        os.environ |= {_ENABLE: "1", _PATH: scratch}
        try:
            yield
        finally:
            del os.environ[_ENABLE], os.environ[_PATH]
        compiled = _sums(copy)
        if compiled != fetched:
            # Without room or permission, the next start compiles again.
            with suppress(OSError):
                _publish(copy, entry, compiled)


_uses = iter([True])


def _first_use() -> bool:
    return next(_uses, False)


def _key(run: Run, world: World) -> str:
    content = {
        "run": run.content_digest,
        "world_size": world.size,
        "source": _source_digest(),
        "mindspore": ms.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@cache
def _source_digest() -> str:
    root = Path(sknet.__file__).parent
    sums = [(str(path.relative_to(root)), file_sha256(path)) for path in sorted(root.rglob("*.py"))]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def _fetch(entry: Path, copy: Path) -> _Sums:
    """Copy an entry and return its sums; copy nothing if the entry is absent or damaged."""
    if not entry.is_dir():
        return {}
    try:
        shutil.copytree(entry, copy, dirs_exist_ok=True)
        sums: _Sums = json.loads((copy / _SUMS_FILE).read_bytes())
        (copy / _SUMS_FILE).unlink()
        if sums == _sums(copy):
            os.utime(entry)
            return sums
    except (OSError, ValueError):
        pass
    for path in copy.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {}


def _publish(copy: Path, entry: Path, sums: _Sums) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=entry.parent) as scratch:
        new = Path(scratch) / "entry"
        new.mkdir()
        for name in sums:  # without the modes of MindSpore's files, which only their owner may read
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(copy / name, new / name)
        (new / _SUMS_FILE).write_text(json.dumps(sums), "utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        # Fails if another process has just published the same entry, which does no harm.
        new.rename(entry)
    entries = [path for path in entry.parent.iterdir() if not path.name.startswith(".")]
    for old in sorted(entries, key=lambda path: path.stat().st_mtime)[:-NUM_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _sums(directory: Path) -> _Sums:
    return {
        str(path.relative_to(directory)): file_sha256(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
