"""Files: hash them, replace them, give them usual permissions, and wait until the disk has them."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from infra.base.progress import Count, uncounted

HASHED_BLOCK = 256 << 10


def cache_directory(name: str = "") -> Path:
    """Return a directory of this user's cache on this host. It is safe to delete at any time.

    The cache is ``$SKNET_CACHE``, or else ``sknet`` in ``$XDG_CACHE_HOME`` (``~/.cache``).
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SKNET_CACHE") or Path(base) / "sknet").absolute() / name


def is_file(path: str | Path) -> bool:
    """Tell whether a path is a file; False also for a path that can't be looked at.

    `Path.is_file` raises OSError for a name that is too long, and in a forbidden directory.
    """
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises, see above)


def is_directory(path: str | Path) -> bool:
    """Tell whether a path is a directory; see `is_file`."""
    return os.path.isdir(path)  # noqa: PTH112 (as in is_file)


def scan(directory: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of all files and links below a directory, without following links."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield from scan(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.stat(follow_symlinks=False)


def file_sha256(path: Path, count: Count = uncounted) -> str:
    """Return the SHA-256 of a file's content, in lower-case hex; count the bytes that are read."""
    digest, block = hashlib.sha256(), memoryview(bytearray(HASHED_BLOCK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
            count(size)
    return digest.hexdigest()


def status_of_new_file(directory: Path) -> os.stat_result:
    """Return the status that a new file in a directory has.

    Its mode follows the umask or the directory's default ACL; its group follows the directory, if
    that has the set-gid bit.
    """
    path = directory / f".new-{uuid4().hex}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
        path.unlink()


def set_access(path: Path, like: os.stat_result) -> None:
    """Give a file the mode and the group of another one.

    Libraries make files that only their owner may read, and a file that was moved here may have
    another group.

    Raises:
        PermissionError: The file is another user's, or this user is not in the group.
    """
    status = path.lstat()
    if status.st_gid != like.st_gid:
        os.chown(path, -1, like.st_gid)
    if stat.S_IMODE(status.st_mode) != stat.S_IMODE(like.st_mode):
        path.chmod(stat.S_IMODE(like.st_mode))


def fsync(path: Path) -> os.stat_result:
    """Wait until a file's content, or a directory's names, are on disk; return its status."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until its content is on disk. Its name needs `fsync` of the parent."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file so that readers find its old content or the new one, never a mixture.

    Args:
        path: The file, which has one writer at a time. Meanwhile, ``<name>.part`` beside it holds
            the new content.
        content: The new content.
        durable: Whether the same holds after a crash of the machine.
    """
    part = path.with_name(f"{path.name}.part")
    if durable:
        write_durably(part, content)
    else:
        part.write_bytes(content)
    part.replace(path)
    if durable:
        fsync(path.parent)
