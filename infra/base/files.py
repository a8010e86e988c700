"""Files that survive a crash: write, replace, link, hash, and wait for the disk."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Another file system, one without hard links, a file of another user, or too many links.
_CANNOT_LINK = {errno.EXDEV, errno.ENOTSUP, errno.EPERM, errno.EMLINK}


def cache_directory(name: str = "") -> Path:
    """Return a directory of this user's cache on this host. It is safe to delete at any time.

    The cache is ``$SKNET_CACHE``, or ``sknet`` where XDG keeps caches (``~/.cache``).
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SKNET_CACHE") or Path(base) / "sknet").absolute() / name


def scan(directory: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield the relative path and status of all that is no directory; follow no symlink."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield from scan(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.stat(follow_symlinks=False)


def file_sha256(path: Path) -> str:
    """Return the SHA-256, in lower-case hex, of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> bool:
    """Give a file a second name, or copy it where a hard link can't be made.

    Returns:
        Whether both names are the same file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        shutil.copyfile(source, target, follow_symlinks=False)
        return False
    return True


def fsync(path: Path) -> os.stat_result:
    """Wait until a file's content, or a directory's names, are on disk; return its status."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(directory: Path) -> None:
    """Wait until the names in a directory and in all directories below it are on disk."""
    for parent, _, _ in os.walk(directory, topdown=False):
        fsync(Path(parent))


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until its content is on disk. Its name needs `fsync` of the parent."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file so that readers find its old content or the new one, and nothing between.

    Args:
        path: The file.
        content: Its new content.
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
