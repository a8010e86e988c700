"""Garbage collection: first a plan, which is a function of what the store holds; then the removal.

These artifacts stay: the targets of refs, present and former; what was made from them; what was
committed or used lately; what is being built; and everything that any of these was made from.
Damaged artifacts are not garbage: `repair` sets them aside.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from infra.artifacts.documents import StoreError
from infra.artifacts.holdings import Build, Leftover, Usage, noting
from infra.artifacts.records import Address, Manifest
from infra.artifacts.refs import Ref
from infra.artifacts.store import ArtifactStore

CHECKED_TOGETHER = 64
"""Artifacts that are removed after one look at the builds under way."""


@dataclass(frozen=True)
class Stored:
    """What a plan has to know of an artifact."""

    manifest: Manifest
    used: datetime
    """When it was committed or last used."""

    @property
    def address(self) -> Address:
        """Kind and key."""
        return self.manifest.kind, self.manifest.key


@dataclass(frozen=True)
class Plan:
    """What stays in a store and what goes."""

    kept: Mapping[Address, str]
    """Address of each artifact that stays → why."""
    garbage: tuple[Stored, ...]
    leftovers: tuple[Leftover, ...] = ()
    num_bytes: Mapping[Address, int] = field(default_factory=dict)
    """Size of each artifact, of those that stay too."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Path of what can't be read → why. What it was made from isn't known."""
    has_refs: bool = True
    """Whether any ref protects anything."""


def plan(
    artifacts: Iterable[Stored],
    refs: Mapping[str, Iterable[Ref]],
    held: Iterable[Build],
    *,
    unused_since: datetime,
) -> Plan:
    """Decide which artifacts stay.

    Args:
        artifacts: All artifacts of a store, but damaged ones.
        refs: Name of each ref → all of its entries.
        held: The builds under way.
        unused_since: An artifact that was committed or used later stays.
    """
    stored = {artifact.address: artifact for artifact in artifacts}
    by_digest = defaultdict(list)
    for address, artifact in stored.items():
        by_digest[artifact.manifest.digest].append(address)
    reasons: dict[Address, str] = {}
    for address, reason in _roots(stored, by_digest, refs, held, unused_since):
        if address in stored:
            reasons.setdefault(address, reason)
    unvisited = list(reasons)
    while unvisited:
        kind, key = unvisited.pop()
        for digest in stored[kind, key].manifest.inputs.values():
            for address in by_digest[digest]:
                if address not in reasons:
                    reasons[address] = f"input of {kind}/{key[:12]}"
                    unvisited.append(address)
    garbage = tuple(stored[address] for address in sorted(stored.keys() - reasons.keys()))
    return Plan({address: reasons[address] for address in sorted(reasons)}, garbage)


def _roots(
    stored: Mapping[Address, Stored],
    by_digest: Mapping[str, list[Address]],
    refs: Mapping[str, Iterable[Ref]],
    held: Iterable[Build],
    unused_since: datetime,
) -> Iterator[tuple[Address, str]]:
    targets = {}
    for name, entries in refs.items():
        for ref in entries:
            entry = f"refs/{name} version {ref.version}"
            targets[ref.key] = targets[ref.digest] = entry
            yield (ref.kind, ref.key), entry
    for build in held:
        yield (build.kind, build.key), "being built"
        for digest in build.inputs.values():
            for address in by_digest.get(digest, ()):
                yield address, f"input of {build.kind}/{build.key[:12]}, which is being built"
    for address, artifact in stored.items():
        named = _named(artifact.manifest) & targets.keys()
        if named:
            yield address, f"made from the target of {targets[min(named)]}"
        if artifact.used >= unused_since:
            yield address, _used(artifact.used)


def _used(time: datetime) -> str:
    return f"used {time:%Y-%m-%d}"


def _named(manifest: Manifest) -> set[str]:
    """Return the digests, and keys, that an artifact names: a log names the key of its run."""
    params = {value for value in manifest.params.values() if isinstance(value, str)}
    return {*manifest.inputs.values(), *params}


def survey(store: ArtifactStore, *, unused_since: datetime) -> Plan:
    """Make a plan for a store as it is now."""
    unreadable: dict[str, str] = {}
    note = noting(unreadable)

    def held() -> tuple[Build, ...]:
        try:
            return tuple(store.held())
        except PermissionError as error:
            note(str(error.filename), error)
            return ()

    # Listed before and after: a builder that ends meanwhile leaves an artifact, which is new.
    before = held()
    usages = store.usages(on_unreadable=note)
    refs = {name: store.refs.history(name) for name in store.refs.names()}
    if all(usage.used >= unused_since for usage in usages.values()):
        # Whatever was made from what, nothing is garbage: no manifest has to be read.
        planned = Plan({address: _used(usage.used) for address, usage in usages.items()}, ())
    else:
        artifacts = []
        for manifest in store.list(on_unreadable=note):
            new = Usage(datetime.now(UTC), manifest.num_bytes)  # it has come meanwhile
            usage = usages.setdefault((manifest.kind, manifest.key), new)
            artifacts.append(Stored(manifest, usage.used))
        planned = plan(artifacts, refs, (*before, *held()), unused_since=unused_since)
    return replace(
        planned,
        leftovers=tuple(store.leftovers(unused_since)),
        num_bytes={address: usage.num_bytes for address, usage in usages.items()},
        unreadable=unreadable,
        has_refs=bool(refs),
    )


def collect(store: ArtifactStore, planned: Plan, *, unused_since: datetime) -> dict[str, str]:
    """Remove the garbage and leftovers of a plan, except what has come into use since then.

    Returns:
        Path of what this user may not remove → why.
    """
    refused: dict[str, str] = {}

    def attempt(path: str, remove: Callable[[], None]) -> None:
        try:
            remove()
        except PermissionError as error:
            refused[path] = str(error.strerror)

    def remove(artifact: Stored) -> None:
        kind, key = artifact.address
        try:
            used = store.last_used(kind, key)
        except StoreError:
            return  # another collection has removed it
        if used < unused_since:
            attempt(f"{kind}/{key}", partial(store.remove_listed, kind, key, artifact.manifest))

    with store.parallel() as in_parallel:
        for start in range(0, len(planned.garbage), CHECKED_TOGETHER):
            artifacts = planned.garbage[start : start + CHECKED_TOGETHER]
            wanted = {
                name for build in store.held() for name in (build.key, *build.inputs.values())
            }
            unwanted = (
                each for each in artifacts if not wanted & {each.manifest.key, each.manifest.digest}
            )
            for _ in in_parallel(remove, unwanted):
                pass
    for leftover in planned.leftovers:
        attempt(leftover.name, leftover.remove)
    return refused
