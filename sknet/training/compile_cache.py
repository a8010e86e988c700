"""The training step's compiled graph, kept for the next start of the same training.

MindSpore's own cache looks up graphs by the order in which a process compiles them and checks
little more: with another label smoothing, or another network compiled first, it silently computes
what it finds. So each entry here belongs to one training alone (the digest of all that shapes the
step, this package's source included), holds this one graph, is whole or absent, and is verified
before use. A process works on a copy of its own, so that any number may start at the same time.

An entry takes about 1 MB; the newest `NUM_KEPT` stay. MS_COMPILER_CACHE_ENABLE in the environment,
0 or 1, takes the matter out of our hands.
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
_SUMS = "sha256.json"

_Sums = dict[str, str]
"""SHA-256 by relative path."""


@contextmanager
def compile_cache(run: Run, world: World) -> Iterator[None]:
    """What is compiled inside, one graph, comes from the cache or goes there.

    A no-op after the first use in a process, as MindSpore never looks at its path again.
    """
    if _ENABLE in os.environ or not _first_use():
        yield
        return
    entry = cache_directory("compiled") / f"{_key(run, world)}-{world.rank}"
    with tempfile.TemporaryDirectory(prefix="sknet-compile-") as scratch:
        own = Path(scratch)
        fetched = _fetch(entry, own)
        os.environ |= {_ENABLE: "1", _PATH: scratch}
        try:
            yield
        finally:
            del os.environ[_ENABLE], os.environ[_PATH]
        compiled = _sums(own)
        if compiled != fetched:
            # Without room or permission the next start compiles again, that is all.
            with suppress(OSError):
                _publish(own, entry, compiled)


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


def _fetch(entry: Path, own: Path) -> _Sums:
    """Copy the entry and return what it holds: nothing if it isn't there or isn't sound."""
    if not entry.is_dir():
        return {}
    try:
        shutil.copytree(entry, own, dirs_exist_ok=True)
        sums: _Sums = json.loads((own / _SUMS).read_bytes())
        (own / _SUMS).unlink()
        if sums == _sums(own):
            os.utime(entry)
            return sums
    except (OSError, ValueError):
        pass
    for path in own.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {}


def _publish(own: Path, entry: Path, sums: _Sums) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=entry.parent) as scratch:
        new = Path(scratch) / "entry"
        shutil.copytree(own, new)
        (new / _SUMS).write_text(json.dumps(sums), "utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        # Fails if another process was faster, which is as well.
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
