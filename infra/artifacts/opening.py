"""Opens the store at a URI."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from infra.artifacts.documents import StoreError, UnreachableStoreError
from infra.artifacts.local import LocalStore
from infra.artifacts.store import ArtifactStore
from infra.base.files import cache_directory, is_directory
from infra.base.on_demand import LIMIT_VARIABLE

if TYPE_CHECKING:
    from infra.artifacts.s3_profile import StoreServer
    from infra.s3 import Bucket

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_FORMS = "file:///abs/path, s3://bucket/prefix or a plain path"
_GIGABYTE = 10**9


def default_store() -> str:
    """Return the store of flows that are not given one: ``SKNET_STORE``, else ``artifacts``.

    An installation sets it once for all its deployments. A deployment doesn't record it: the flow
    asks when it runs, so that the environment of its worker decides.
    """
    return os.environ.get("SKNET_STORE") or "artifacts"


def open_store(uri: str, *, create: bool = True) -> ArtifactStore:
    """Open the artifact store at ``file:///abs/path``, a plain path, or ``s3://bucket/prefix``.

    For S3, endpoint, region, credentials and certificates come from the standard AWS settings.
    This host's copies are below ``SKNET_CACHE`` (default: ``sknet`` in the user's cache), at most
    ``SKNET_CACHE_GB`` of them (default: half of that disk). Beside them there are at most
    ``SKNET_ON_DEMAND_GB`` of files that come on demand (default: half of what is free then).

    Args:
        uri: Where the store is; a relative path is relative to the working directory.
        create: Whether to make a missing directory, and to check that the store can be written. A
            bucket has to exist; its server is probed unless the store has recorded what it does.
            Without, an existing store is opened for reading.

    Raises:
        StoreError: The URI has another form, or the store can't be used.
        UnreachableStoreError: The store is on S3, and can't be reached now.
    """
    if uri.startswith("s3://"):
        return _open_s3(uri, create=create)
    root = local_path(uri)
    if create:
        _make_writable(root)
    elif not is_directory(root):
        raise StoreError(f"store {uri!r} does not exist, expected an existing directory")
    return LocalStore(root)


def open_bucket(uri: str) -> "Bucket":
    """Return the bucket of a store on S3, with writes that are safe on its server.

    Raises:
        StoreError: The settings of this host are wrong, or it may not use the bucket.
        UnreachableStoreError: S3 can't be reached now.
    """
    with _errors_of_store(uri):
        return _server(uri, cache_directory()).bucket


def absolute_uri(uri: str) -> str:
    """Return the same store for a process in another directory, or for whoever reads of it.

    Raises:
        StoreError: The URI has another form than `open_store` takes.
    """
    return uri if uri.startswith("s3://") else str(local_path(uri))


def _open_s3(uri: str, *, create: bool) -> ArtifactStore:
    # boto3 takes as long to import as everything else here: only those who need it wait for it.
    from infra.artifacts.s3 import S3Store

    cache_limit, on_demand_limit = _gigabytes("SKNET_CACHE_GB"), _gigabytes(LIMIT_VARIABLE)
    directory = cache_directory()
    with _errors_of_store(uri):
        server = _server(uri, directory)
        if create:
            server.profile()
        return S3Store(
            server.bucket, directory, cache_limit=cache_limit, on_demand_limit=on_demand_limit
        )


@contextmanager
def _errors_of_store(uri: str) -> Iterator[None]:
    """Raise errors of S3 as errors of the store.

    Raises:
        StoreError: The store can't be used.
        UnreachableStoreError: It can't be reached now.
    """
    from infra.s3 import S3Error

    try:
        yield
    except S3Error as error:
        if error.errno == errno.EAGAIN:
            raise UnreachableStoreError(f"store {uri!r} can't be used: {error.strerror}") from None
        raise StoreError(f"store {uri!r} can't be used: {error.strerror}") from None


@cache
def _server(uri: str, directory: Path) -> "StoreServer":
    """Return the server of a store, asked once in a process: every task opens the store."""
    from infra.artifacts.s3_profile import StoreServer
    from infra.s3 import Bucket

    bucket = Bucket(uri)
    bucket.check()
    return StoreServer(bucket, directory)


def _gigabytes(variable: str) -> int | None:
    """Return the bytes that a variable of the environment allows; None if it isn't set."""
    text = os.environ.get(variable)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        raise StoreError(f"{variable} is {text!r}, expected a number of gigabytes")
    return int(float(text) * _GIGABYTE)


def local_path(uri: str) -> Path:
    """Return the directory of a store that isn't on S3.

    Raises:
        StoreError: The URI has another form.
    """
    scheme = _SCHEME.match(uri)
    if scheme is not None and not uri.startswith("file:///"):
        raise StoreError(
            f"store {uri!r} has an unknown form, expected {_FORMS} (one with a colon as ./a:b)"
        )
    path = unquote(uri.removeprefix("file://")) if scheme is not None else uri
    if not path or "\0" in path:
        raise StoreError(f"store {uri!r} is no path, expected {_FORMS}")
    return Path(path).absolute()


def _make_writable(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".probe-"):
            pass  # permissions aren't enough: the file system may be full or read-only
    except OSError as error:
        raise StoreError(
            f"store {str(root)!r} can't be created or written ({error.strerror}), "
            "expected a directory that this user may write: give another path or free this one"
        ) from error
