"""Botocore clients for S3, made from the standard AWS settings; their logs contain no secrets."""

import logging
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import create_loader
from botocore.session import get_session

from infra.s3.errors import S3Error, error_number, reason

CONNECT_SECONDS = 10
READ_SECONDS = 60
CONNECTIONS = 32
"""Open connections that a client keeps, for threads that make requests at the same time."""
# Shared, so that S3's description is read only once: a new client then costs a sixth.
_LOADER = create_loader()
# At debug level they log signatures, tokens, and answers that contain credentials.
_VERBOSE_LOGGERS = (
    *("botocore.auth", "botocore.endpoint", "botocore.parsers", "botocore.credentials"),
    *("botocore.utils", "botocore.awsrequest", "botocore.hooks", "botocore.signers"),
    *("botocore.regions", "botocore.client", "botocore.handlers"),
)


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket, and a prefix that is empty or ends with a slash."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, uri: str) -> "Location":
        """Parse `s3://bucket/prefix`.

        Raises:
            S3Error: The URI has another form.
        """
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not bucket:
            raise S3Error(0, f"{uri!r} is not an S3 location, expected s3://bucket/prefix")
        return cls(bucket, prefix.strip("/") + "/" if prefix.strip("/") else "")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


class Clients:
    """The client that all threads share; a failed request makes the next one use a new client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Any = None
        self._addressing: dict[str, Any] | None = None

    def current(self) -> Any:
        """Return the client.

        Raises:
            S3Error: The settings are missing or wrong.
        """
        with self._lock:
            if self._client is None:
                self._client = new_client(
                    # Requests are repeated by Operation, which knows what was sent already.
                    retries={"total_max_attempts": 1},
                    # Each write says itself which checksum it sends; answers are compared once,
                    # with the SHA-256 that is expected.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3=self._addressing,
                )
                self._addressing = self._client.meta.config.s3
            return self._client

    def discard(self, failed: Any) -> None:
        """Make a new client for the next request, unless that has happened already."""
        with self._lock:
            if self._client is failed:
                self._client = None


def new_client(**options: Any) -> Any:
    """Return a client for the current settings and credentials.

    Args:
        **options: Options of `botocore.config.Config`.

    Raises:
        S3Error: The settings are missing or wrong.
    """
    _drop_debug_messages()
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        **options,
    )
    try:
        # A new session, because boto3's default session keeps the first credentials it finds.
        session = get_session()
        session.register_component("data_loader", _LOADER)
        client = session.create_client("s3", config=config)
        if _needs_path_style(client):
            config = config.merge(Config(s3={"addressing_style": "path"}))
            client = session.create_client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise S3Error(error_number(error), reason(error)) from None
    return client


def _needs_path_style(client: Any) -> bool:
    """Tell whether the bucket's name belongs into the path; at AWS it is part of the host name."""
    style = (client.meta.config.s3 or {}).get("addressing_style")
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    return style is None and not host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _drop_debug_messages() -> None:
    for name in _VERBOSE_LOGGERS:
        logger = logging.getLogger(name)
        if _is_above_debug not in logger.filters:
            logger.addFilter(_is_above_debug)


def _is_above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
