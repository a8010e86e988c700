"""The store and the Prefect server: whether they work, and how far their clocks are off."""

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
from typing import TYPE_CHECKING

from infra.artifacts import ArtifactSpec, LocalStore, RefConflictError, StoreError
from infra.artifacts.opening import local_path
from infra.base.files import cache_directory
from infra.base.outcomes import UserError
from infra.doctor.machine import existing_directory
from infra.doctor.results import CheckResult, Status

if TYPE_CHECKING:
    from infra.s3 import Guarantee, Profile

HTTP_SECONDS = 10.0

STORE_SECONDS = 20.0
"""A store that needs longer for one small object can't serve a training."""

MAX_ANSWER = 1 << 16
"""Bytes read from an HTTP answer."""

SKEW_SECONDS = 5.0
"""Half the 10 s by which Prefect's worker looks ahead: beyond it, runs start late or early."""

MAX_SKEW_SECONDS = 60.0
"""Beyond it heartbeats and schedules go wrong; S3 refuses requests from 900 s on."""

PROBE = ArtifactSpec(kind="probe", format_version=1, params={}, inputs={})


@dataclass(frozen=True, slots=True)
class StoreProbe:
    """The outcome of writing to a store and reading from it."""

    uri: str
    trouble: str = ""
    """Why the store can't be used; empty if it can."""
    skew: float | None = None
    """The store's clock minus ours, in seconds."""
    profile: "Profile | None" = None
    """What the server of a store on S3 does."""
    has_changed: bool = False
    """Whether the store has recorded otherwise; it now records what was found."""


@dataclass(frozen=True, slots=True)
class PrefectProbe:
    """The answers of a Prefect server."""

    url: str | None
    """None if no server is configured."""
    trouble: str = ""
    """Why the server can't be used; empty if it can."""
    server: str = ""
    """The server's version; empty if unknown."""
    skew: float | None = None
    """The server's clock minus ours, in seconds; None if it sent no date."""


def local_directory(uri: str) -> Path | None:
    """Return the directory of a store on this host; None if the store is on S3.

    Raises:
        UserError: The URI has another form, or contains credentials.
    """
    if "://" in uri and "@" in uri:
        raise UserError(
            "the store's URI contains credentials, which would appear in logs: set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead"
        )
    return None if uri.startswith("s3://") else local_path(uri)


def try_store(uri: str, directory: Path | None) -> StoreProbe:
    """Write into the store, read it back, and try the conditions that it needs of writes.

    Args:
        uri: The store.
        directory: Its directory; None if it is on S3.
    """
    try:
        if directory is None:
            return _try_s3(uri)
        return StoreProbe(uri, skew=_try_directory(directory))
    except (StoreError, OSError) as error:
        return StoreProbe(uri, trouble=getattr(error, "strerror", None) or str(error))


def check_store(facts: StoreProbe) -> list[CheckResult]:
    """Judge the store and its clock."""
    if facts.trouble:
        advice = "make it writable, or give another --store"
        needed = "reachable, writable, honours conditional writes"
        return [CheckResult("store", Status.FAIL, facts.trouble, needed, advice)]
    clock = _check_clock("clock of the store", facts.skew)
    if facts.profile is None:
        found = f"{facts.uri}: writes, and honours conditional writes"
        return [CheckResult("store", Status.OK, found), clock]
    found = f"{facts.uri}: writes, reads, lists, copies and removes"
    store = CheckResult("store", Status.OK, found)
    if facts.has_changed:
        store = CheckResult(
            "store",
            Status.WARN,
            f"{found}; its server has changed, which is recorded now",
            "does what the store has recorded",
            "start again what writes the store now: it relies on the former record",
        )
    return [store, *(_check_guarantee(each) for each in facts.profile.guarantees), clock]


def _check_guarantee(guarantee: "Guarantee") -> CheckResult:
    """Show where a promise of the store comes from; warn of what is refused for it."""
    return CheckResult.judge(
        f"store: {guarantee.topic}",
        not guarantee.refused,
        found=guarantee.source,
        needed=guarantee.promise,
        advice=f"refused here: {guarantee.refused}; a server that honours conditional writes "
        "needs no such limit",
        otherwise=Status.WARN,
    )


def prefect_url(given: str | None) -> str | None:
    """Return the API's address: as given, from the environment, or from Prefect's own settings.

    Raises:
        UserError: The address is no HTTP URL.
    """
    url = given or os.environ.get("PREFECT_API_URL") or _profile_url()
    if url and not url.startswith(("http://", "https://")):
        raise UserError(f"{url!r} is not the URL of a Prefect API: expected http://HOST:4200/api")
    return url


def ask_prefect(url: str | None, environment: Mapping[str, str] = os.environ) -> PrefectProbe:
    """Ask the server for its health and version."""
    if not url:
        return PrefectProbe(None)
    try:
        began = time.time()
        _, date = _get(f"{url.rstrip('/')}/health", environment)
        ended = time.time()
        version, _ = _get(f"{url.rstrip('/')}/admin/version", environment)
    except urllib.error.HTTPError as error:
        return PrefectProbe(url, trouble=f"HTTP {error.code} {error.reason}")
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        return PrefectProbe(url, trouble=getattr(reason, "strerror", None) or str(reason))
    skew = None if date is None else _skew(date, began, ended, resolution=1)
    return PrefectProbe(url, server=version if isinstance(version, str) else "", skew=skew)


def check_prefect(facts: PrefectProbe, client: str | None) -> list[CheckResult]:
    """Judge the server, its version and its clock.

    Args:
        facts: The server's answers.
        client: The version of Prefect installed here; None if there is none.
    """
    check = "Prefect API"
    if facts.url is None:
        advice = "for deployments: prefect server start, export PREFECT_API_URL"
        found = "no server is configured: each flow starts a temporary one"
        return [CheckResult(check, Status.WARN, found, "a server, for deployments", advice)]
    if facts.trouble:
        found = f"{facts.url}: {facts.trouble}"
        needed = "an answer from /health"
        advice = "start the server, or correct PREFECT_API_URL and its credentials"
        return [CheckResult(check, Status.FAIL, found, needed, advice)]
    return [
        CheckResult.judge(
            check,
            client is None or facts.server == client,
            found=f"{facts.url}: {facts.server or 'version unknown'}",
            needed="" if client is None else f"{client}, as installed here",
            advice="use the same version on server, workers and clients",
            otherwise=Status.WARN,
        ),
        _check_clock("clock of Prefect", facts.skew),
    ]


def _try_s3(uri: str) -> StoreProbe:
    """Probe the server of a store on S3 and its clock; correct what the store has recorded of it.

    Raises:
        StoreError: A store can't be there.
        OSError: The server can't be used.
    """
    from infra.artifacts.s3_profile import StoreServer, require_fit
    from infra.s3 import ANY, SCRATCH, Bucket, Writing

    bucket = Bucket(uri, budget=STORE_SECONDS)
    bucket.check()
    profile = bucket.probe()
    require_fit(bucket, profile)
    server = StoreServer(bucket, cache_directory())
    recorded = server.recorded()
    has_changed = recorded not in (None, profile)
    if has_changed:
        server.record(profile)
    key = f"{SCRATCH}{uuid.uuid4().hex}"
    bucket = bucket.using(Writing(lambda: profile))
    began = time.time()
    bucket.put(key, b"clock", expected=ANY)
    try:
        stored = bucket.head(key)
        if stored is None:
            raise StoreError(f"{bucket.location}: the object just written is not found")
        skew = _skew(stored.modified.timestamp(), began, time.time(), resolution=1)
        return StoreProbe(uri, skew=skew, profile=profile, has_changed=has_changed)
    finally:
        bucket.delete([key])


def _try_directory(directory: Path) -> float:
    """Try a temporary store on the same file system and return the skew of its clock."""
    parent = existing_directory(directory)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".probe-") as name:
        began = time.time()
        store = LocalStore(Path(name))
        with store.workspace(PROBE) as workspace:
            (workspace / "content").write_bytes(b"content")
            store.put(PROBE, workspace, stats={}, provenance={})
        artifact = store.load(PROBE.kind, PROBE.key, level="full")
        store.refs.set("probe", artifact.manifest, expected=None, reason="doctor")
        try:
            store.refs.set("probe", artifact.manifest, expected=None, reason="doctor")
        except RefConflictError:
            # On a network file system, the server's clock sets the file's time.
            written = (Path(name) / "refs" / "probe.json").stat().st_mtime
            return _skew(written, began, time.time(), resolution=0)
        raise StoreError(f"{parent}: a ref was replaced although its expected value was wrong")


def _profile_url() -> str | None:
    try:
        from prefect.settings import get_current_settings

        return get_current_settings().api.url
    except Exception:  # noqa: BLE001 (a broken Prefect fails its own check, by its version)
        return None


def _get(url: str, environment: Mapping[str, str]) -> tuple[object, float | None]:
    """Return the JSON of an answer, and the time on the server's clock if it sent one."""
    request = urllib.request.Request(url)  # noqa: S310 (http and https only, see prefect_url)
    if key := environment.get("PREFECT_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    elif login := environment.get("PREFECT_API_AUTH_STRING"):
        encoded = base64.b64encode(login.encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
    with urllib.request.urlopen(request, timeout=HTTP_SECONDS) as answer:  # noqa: S310 (see above)
        date = answer.headers.get("Date")
        content = json.loads(answer.read(MAX_ANSWER))
    return content, parsedate_to_datetime(date).timestamp() if date else None


def _skew(theirs: float, began: float, ended: float, *, resolution: float) -> float:
    """Return how far a clock is ahead of ours, in seconds; negative if it is behind.

    Args:
        theirs: The time that the clock showed at some moment between `began` and `ended`.
        began: Our time before it was read.
        ended: Our time after it was read.
        resolution: Seconds by which `theirs` may be rounded down.
    """
    if theirs > ended:
        return theirs - ended
    if theirs + resolution < began:
        return theirs + resolution - began
    return 0.0


def _check_clock(check: str, skew: float | None) -> CheckResult:
    if skew is None:
        return CheckResult(check, Status.WARN, "it sends no time", f"within {SKEW_SECONDS:g} s")
    return CheckResult.judge(
        check,
        abs(skew) <= SKEW_SECONDS,
        found="as ours" if skew == 0 else f"{abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}",
        needed=f"within {SKEW_SECONDS:g} s of ours",
        advice="set this machine's clock: timedatectl set-ntp true",
        otherwise=Status.WARN if abs(skew) <= MAX_SKEW_SECONDS else Status.FAIL,
    )
