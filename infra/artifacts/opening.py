"""From a store's URI to the store."""

import re
import tempfile
from pathlib import Path
from urllib.parse import unquote

from infra.artifacts.errors import StoreError
from infra.artifacts.local import LocalStore
from infra.artifacts.store import ArtifactStore

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def open_store(uri: str, *, create: bool = True) -> ArtifactStore:
    """Open the artifact store at ``file:///abs/path`` or a plain path.

    Args:
        uri: Where the store is; a relative path is taken from the working directory.
        create: Make the directory if need be, and check that it can be written. Without, an
            existing directory is opened as it is, for reading.

    Raises:
        StoreError: the URI has another form, or the directory can't be used.
    """
    root = _local_path(uri)
    if create:
        _make_writable(root)
    elif not root.is_dir():
        raise StoreError(f"store {uri!r} does not exist, expected an existing directory")
    return LocalStore(root)


def _local_path(uri: str) -> Path:
    scheme = _SCHEME.match(uri)
    if scheme is not None and scheme[1] == "s3":
        raise StoreError(
            f"store {uri!r} is on S3, this version opens local stores only: "
            "give file:///abs/path or a plain path"
        )
    if scheme is not None and not uri.startswith("file:///"):
        raise StoreError(
            f"store {uri!r} has an unknown form, expected file:///abs/path or a plain path "
            "(one with a colon as ./a:b)"
        )
    path = unquote(uri.removeprefix("file://")) if scheme is not None else uri
    if not path or "\0" in path:
        raise StoreError(f"store {uri!r} is no path, expected file:///abs/path or a plain path")
    return Path(path).absolute()


def _make_writable(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".probe-"):
            pass  # permissions alone don't tell: the file system may be full or read-only
    except OSError as error:
        raise StoreError(
            f"store {str(root)!r} can't be created or written ({error.strerror}), "
            "expected a directory that this user may write: give another path or free this one"
        ) from error
