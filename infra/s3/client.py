"""Clients for S3 from the standard AWS settings; nothing secret in their logs."""

import logging
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import create_loader
from botocore.session import get_session

from infra.s3.errors import S3Error, number, reason

CONNECT_SECONDS = 10
READ_SECONDS = 60
# Reads S3's description once for all clients, which makes each of them six times cheaper.
_LOADER = create_loader()
# At debug level they write signatures, tokens, and answers that hold credentials.
_TALKATIVE = (
    *("botocore.auth", "botocore.endpoint", "botocore.parsers", "botocore.credentials"),
    *("botocore.utils", "botocore.awsrequest", "botocore.hooks", "botocore.signers"),
)


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket, and a prefix that is empty or ends in a slash."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, uri: str) -> "Location":
        """Raises S3Error."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not bucket:
            raise S3Error(0, f"{uri!r} is no S3 location, expected s3://bucket/prefix")
        return cls(bucket, prefix.strip("/") + "/" if prefix.strip("/") else "")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def new_client(**options: Any) -> Any:
    """With settings and credentials read again. Raises S3Error.

    `options` are botocore.config.Config's.
    """
    _silence()
    config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, **options)
    try:
        # boto3's default session keeps the first credentials that it met.
        session = get_session()
        session.register_component("data_loader", _LOADER)
        client = session.create_client("s3", config=config)
        if _needs_paths(client):
            config = config.merge(Config(s3={"addressing_style": "path"}))
            client = session.create_client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise S3Error(number(error), reason(error)) from None
    return client


class Clients:
    """The client for all threads, made at the first request and anew after a failed one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Any = None
        self._addressing: dict[str, Any] | None = None

    def current(self) -> Any:
        """Raises S3Error."""
        with self._lock:
            if self._client is None:
                self._client = new_client(
                    # Repeated here, where it is known what was sent already.
                    retries={"total_max_attempts": 1},
                    # Compared here, once, with the SHA-256 that is expected.
                    response_checksum_validation="when_required",
                    s3=self._addressing,
                )
                self._addressing = self._client.meta.config.s3
            return self._client

    def give_up(self, failed: Any) -> None:
        """Take another one from now on."""
        with self._lock:
            if self._client is failed:
                self._client = None


def _needs_paths(client: Any) -> bool:
    """Whether buckets can't be expected to be host names, as they are at AWS."""
    style = (client.meta.config.s3 or {}).get("addressing_style")
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    return style is None and not host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _silence() -> None:
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        if _above_debug not in logger.filters:
            logger.addFilter(_above_debug)


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
