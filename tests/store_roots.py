"""Roots of both kinds of store, as several hosts open them, with access to the files behind them.

"Host" means one user of a store with a cache of its own; here all hosts are this machine.
"""

import os
import shutil
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
from botocore.exceptions import ClientError

from infra.artifacts import ArtifactStore, LocalStore
from infra.artifacts.s3 import S3Store
from infra.artifacts.s3_profile import StoreServer
from infra.s3 import Bucket, Profile

EXPIRY_SECONDS = 4.0
BUCKET = "artifacts"


class StoreRoot(ABC):
    """Where a store's files are."""

    @abstractmethod
    def host(self, name: str) -> ArtifactStore:
        """Return the store as this host opens it."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return the content of a file of the store, without the store's checks."""

    @abstractmethod
    def write(self, path: str, content: bytes) -> None:
        """Make or change a file without the store's knowledge."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file without the store's knowledge."""

    @abstractmethod
    def paths(self, prefix: str) -> list[str]:
        """Return the paths of the files below a prefix, sorted."""


class LocalRoot(StoreRoot):
    """A directory that the hosts share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def host(self, name: str) -> ArtifactStore:
        del name  # all hosts see the same directory
        return LocalStore(self.root)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def paths(self, prefix: str) -> list[str]:
        found = (str(path.relative_to(self.root)) for path in self.root.rglob("*"))
        return sorted(p for p in found if p.startswith(prefix) and (self.root / p).is_file())


class S3Root(StoreRoot):
    """A prefix of its own in a bucket of the test's server."""

    def __init__(
        self, hosts: Path, endpoint: str | None = None, profile: Profile | None = None
    ) -> None:
        """Make the bucket if it is missing.

        Args:
            hosts: Directory for the hosts' caches.
            endpoint: Address of the server, if the AWS settings have another one.
            profile: What the server does, if not what AWS documents; the store records it. All
                hosts then share the directory of locks.
        """
        self._hosts = hosts
        self._endpoint = endpoint
        self._profile = profile
        self.prefix = f"stores/{uuid4().hex[:12]}"
        try:
            self._client.head_bucket(Bucket=BUCKET)
        except ClientError:
            self._client.create_bucket(Bucket=BUCKET)
        if profile is not None:
            self._server().record(profile)

    def _server(self) -> StoreServer:
        return StoreServer(Bucket(self.uri), self._hosts / "shared")

    @property
    def _client(self) -> Any:
        return _client(self._endpoint or os.environ["AWS_ENDPOINT_URL_S3"])

    @property
    def uri(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}"

    def cache(self, name: str) -> Path:
        return self._hosts / name

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of commands on a new host; all hosts share compiled graphs."""
        cache = self.cache(name)
        cache.mkdir(parents=True)
        compiled = (Path(os.environ["SKNET_CACHE"]) / "compiled").resolve()
        compiled.mkdir(exist_ok=True)
        (cache / "compiled").symlink_to(compiled)
        return {"SKNET_CACHE": str(cache)}

    def host(self, name: str) -> S3Store:
        bucket = Bucket(self.uri) if self._profile is None else self._server().bucket
        return S3Store(bucket, self.cache(name), lease_expiry=EXPIRY_SECONDS)

    def clear_cache(self, name: str) -> None:
        """Remove what the host has downloaded."""
        shutil.rmtree(self.cache(name))

    def read(self, path: str) -> bytes:
        answer = self._client.get_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}")
        return answer["Body"].read()

    def write(self, path: str, content: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}", Body=content)

    def rot(self, path: str, content: bytes) -> None:
        """Change a file, but not the SHA-256 with which it was written."""
        address = {"Bucket": BUCKET, "Key": f"{self.prefix}/{path}"}
        metadata = self._client.head_object(**address)["Metadata"]
        self._client.put_object(**address, Body=content, Metadata=metadata)

    def remove(self, path: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}")

    def paths(self, prefix: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=f"{self.prefix}/{prefix}"
        )
        keys = (item["Key"] for page in pages for item in page.get("Contents", []))
        return sorted(key.removeprefix(f"{self.prefix}/") for key in keys)


@cache
def _client(endpoint: str) -> Any:
    """Return one client in each process: clients can't be sent to others, and roots are."""
    return boto3.session.Session().client("s3", endpoint_url=endpoint)
