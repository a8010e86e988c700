"""Facts about what is reached over the network or a mount: the store, the Prefect server."""

import base64
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from infra.artifacts import ArtifactSpec, LocalStore, RefConflictError, StoreError
from infra.artifacts.opening import local_path
from infra.doctor.findings import Finding, Status
from infra.doctor.machine import existing

HTTP_SECONDS = 10.0

STORE_SECONDS = 20.0
"""A store that takes longer for one small object can't carry a training."""

MAX_ANSWER = 1 << 16

SPEC = ArtifactSpec(kind="probe", format_version=1, params={}, inputs={})


@dataclass(frozen=True, slots=True)
class Store:
    """What happened when the store was tried."""

    uri: str
    trouble: str = ""
    """Why it can't be used; empty if it can."""
    skew: float | None = None
    """Its clock minus ours, in seconds."""


@dataclass(frozen=True, slots=True)
class Api:
    """What the Prefect server answered."""

    url: str | None
    """None if none is set."""
    trouble: str = ""
    server: str = ""
    """Its version, if it told."""
    skew: float | None = None


class WrongInputError(ValueError):
    """What the user gave can't be meant; the message is one line."""


def local_directory(uri: str) -> Path | None:
    """Where a store lies on this host; None if it lies on S3.

    Raises WrongInputError if the URI has another form, or holds credentials.
    """
    if "://" in uri and "@" in uri:
        raise WrongInputError(
            "the store's URI holds credentials, which end in logs: give them as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if uri.startswith("s3://"):
        return None
    try:
        return local_path(uri)
    except StoreError as error:
        raise WrongInputError(str(error)) from None


def try_store(uri: str, directory: Path | None) -> Store:
    """Write, read back, and write under conditions that must not hold."""
    try:
        return Store(uri, skew=_try_s3(uri) if directory is None else _try_directory(directory))
    except (StoreError, OSError) as error:
        return Store(uri, trouble=getattr(error, "strerror", None) or str(error))


def _try_s3(uri: str) -> float:
    from infra.s3 import ABSENT, Bucket

    bucket = Bucket(uri, budget=STORE_SECONDS)
    bucket.check(write=True)
    key = f".probe-{uuid.uuid4().hex}"
    began = time.time()
    bucket.put(key, b"clock", expected=ABSENT)
    try:
        stored = bucket.head(key)
        if stored is None:
            raise StoreError(f"{bucket.location}: what was written is not found")
        return _skew(stored.modified.timestamp(), began, time.time(), resolution=1)
    finally:
        bucket.delete([key])


def _try_directory(directory: Path) -> float:
    """A store of its own inside, as that has the same file system: locks, renames, conflicts."""
    place = existing(directory)
    with tempfile.TemporaryDirectory(dir=place, prefix=".probe-") as name:
        began = time.time()
        store = LocalStore(Path(name))
        with store.workspace(SPEC) as workspace:
            (workspace / "content").write_bytes(b"content")
            store.put(SPEC, workspace, stats={}, provenance={})
        artifact = store.load(SPEC.kind, SPEC.key, level="full")
        store.refs.set("probe", artifact.manifest, expected=None, reason="doctor")
        try:
            store.refs.set("probe", artifact.manifest, expected=None, reason="doctor")
        except RefConflictError:
            # A file server's clock sets the time of what is written.
            written = (Path(name) / "refs" / "probe.json").stat().st_mtime
            return _skew(written, began, time.time(), resolution=0)
        raise StoreError(f"{place}: a ref was replaced although it wasn't what was expected")


def ask_prefect(url: str | None, environment: Mapping[str, str] = os.environ) -> Api:
    """Ask the server for its health and version."""
    if not url:
        return Api(None)
    try:
        began = time.time()
        _, date = _get(f"{url.rstrip('/')}/health", environment)
        ended = time.time()
        version, _ = _get(f"{url.rstrip('/')}/admin/version", environment)
    except urllib.error.HTTPError as error:
        return Api(url, trouble=f"HTTP {error.code} {error.reason}")
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Api(url, trouble=getattr(reason, "strerror", None) or str(reason))
    skew = None if date is None else _skew(date, began, ended, resolution=1)
    return Api(url, server=version if isinstance(version, str) else "", skew=skew)


def prefect_url(given: str | None) -> str | None:
    """The address of the API: given, or from the environment, or from Prefect's own settings.

    Raises WrongInputError if that is no address.
    """
    url = given or os.environ.get("PREFECT_API_URL") or _profile_url()
    if url and not url.startswith(("http://", "https://")):
        raise WrongInputError(f"{url!r} is no address of a Prefect API: http://HOST:4200/api")
    return url


def _profile_url() -> str | None:
    try:
        from prefect.settings import get_current_settings

        return get_current_settings().api.url
    except Exception:  # noqa: BLE001 (a broken Prefect fails its own check, by its version)
        return None


def _get(url: str, environment: Mapping[str, str]) -> tuple[Any, float | None]:
    """The JSON of an answer, and the time on the server's clock."""
    request = urllib.request.Request(url)  # noqa: S310 (http and https only, see prefect_url)
    if key := environment.get("PREFECT_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    elif login := environment.get("PREFECT_API_AUTH_STRING"):
        encoded = base64.b64encode(login.encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
    with urllib.request.urlopen(request, timeout=HTTP_SECONDS) as answer:  # noqa: S310
        date = answer.headers.get("Date")
        content = json.loads(answer.read(MAX_ANSWER))
    return content, parsedate_to_datetime(date).timestamp() if date else None


def _skew(theirs: float, began: float, ended: float, *, resolution: float) -> float:
    """How far a clock is from ours, if it showed `theirs` at some moment between the two."""
    if theirs > ended:
        return theirs - ended
    if theirs + resolution < began:
        return theirs + resolution - began
    return 0.0


OK, WARN, FAIL = Status.OK, Status.WARN, Status.FAIL

SKEW_SECONDS = 5.0
"""Half of what Prefect's worker looks ahead for runs (10 s): beyond, runs start late or early."""

MOST_SKEW_SECONDS = 60.0
"""Heartbeats and schedules become wrong; S3 refuses requests from 900 s on."""

CLOCK = "set this machine's clock: timedatectl set-ntp true"


def check_store(facts: Store) -> list[Finding]:
    """Reached, written, read back, and conditions are heeded."""
    if facts.trouble:
        advice = "make it writable, or give another --store"
        needed = "reachable, writable, heeds conditions"
        return [Finding("store", FAIL, facts.trouble, needed, advice)]
    found = f"{facts.uri}: writes, and heeds conditions"
    return [Finding("store", OK, found), _clock("clock of the store", facts.skew)]


def check_prefect(facts: Api, client: str | None) -> list[Finding]:
    """Reached, and of the client's version."""
    if facts.url is None:
        advice = "for deployments: prefect server start, export PREFECT_API_URL"
        found = "no server is set: flows start one of their own"
        return [Finding("Prefect API", WARN, found, "a server, for deployments", advice)]
    if facts.trouble:
        found = f"{facts.url}: {facts.trouble}"
        needed = "an answer from /health"
        advice = "start the server, or correct PREFECT_API_URL and its credentials"
        return [Finding("Prefect API", FAIL, found, needed, advice)]
    same = client is None or facts.server == client
    return [
        Finding(
            "Prefect API",
            OK if same else WARN,
            f"{facts.url}: {facts.server or 'version unknown'}",
            "" if client is None else f"{client}, as installed here",
            "" if same else "take one version on server, workers and clients",
        ),
        _clock("clock of Prefect", facts.skew),
    ]


def _clock(check: str, skew: float | None) -> Finding:
    if skew is None:
        return Finding(check, WARN, "it doesn't tell", f"within {SKEW_SECONDS:g} s", "")
    needed = f"within {SKEW_SECONDS:g} s of ours"
    found = "as ours" if skew == 0 else f"{abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) <= SKEW_SECONDS:
        return Finding(check, OK, found, needed)
    return Finding(check, WARN if abs(skew) <= MOST_SKEW_SECONDS else FAIL, found, needed, CLOCK)
