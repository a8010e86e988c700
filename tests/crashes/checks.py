"""What must hold once a run that was hit is done."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from infra.artifacts import open_store
from tests.crashes.scene import Seen
from tests.tiny_pipeline import Trained, digests


@dataclass(frozen=True)
class Verdict:
    """Beside an undisturbed run."""

    equal: bool
    """The digests of all that is the same in every execution."""
    same_production: bool
    damages: tuple[str, ...]
    """That a full verification finds."""
    half: tuple[str, ...]
    """What is left of dead commits and builds, after a repair too."""
    processes: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return self == Verdict(True, True, (), (), ())

    def faults(self) -> str:
        return "; ".join(f"{name}: {value}" for name, value in asdict(self).items())


def judge(store_uri: str, trained: Trained, seen: Seen) -> Verdict:
    """Read every byte of the store."""
    store = open_store(store_uri, create=False)
    production = store.refs.get("production")
    damages = [
        f"{kind}/{key}: {damage}"
        for kind, key in store.addresses()
        for damage in store.verify(kind, key, level="full")
    ]
    now = datetime.now(UTC)
    for leftover in store.leftovers(now):
        store.clear(leftover)
    return Verdict(
        equal=digests(store_uri) == digests(trained.store),
        same_production=(
            production is not None and production.digest == trained.of("train").digest
        ),
        damages=tuple(damages),
        half=tuple(_left_over(store_uri, now)),
        processes=seen.left,
    )


def _left_over(store_uri: str, now: datetime) -> list[str]:
    """What a repair and a collection of garbage don't know, and artifacts without a manifest."""
    store = open_store(store_uri, create=False)
    named = [leftover.name for leftover in store.leftovers(now)]
    listed = {(manifest.kind, manifest.key) for manifest in store.list()}
    half = [f"{kind}/{key}" for kind, key in store.addresses() if (kind, key) not in listed]
    return sorted([*named, *half, *_unknown_files(store_uri)])


def _unknown_files(store_uri: str) -> list[str]:
    """In a directory whatever a commit or build has left but its lock."""
    from infra.artifacts import LocalStore

    store = open_store(store_uri, create=False)
    if not isinstance(store, LocalStore):
        return []
    places = [*store.root.glob(".staging/*"), *store.root.glob(".work/*/*")]
    return [str(path.relative_to(store.root)) for path in places if path.suffix != ".lock"]
