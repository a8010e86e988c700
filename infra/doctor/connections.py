"""Can the store and the Prefect server be worked with, and do the clocks agree?"""

from infra.doctor.findings import Finding, Status
from infra.doctor.services import Api, Store

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
