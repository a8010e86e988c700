"""How far an artifact's hashing, transfers and verification are, told to whoever watches."""

from collections.abc import Callable
from pathlib import Path

from artifact_examples import make_spec, write_files

from infra.base.progress import watching
from tests.store_roots import LocalRoot, StoreRoot

LARGE = {"shards/0": b"0" * 600_000, "shards/1": b"1" * 200_000}


def test_long_work_is_told_byte_by_byte(store_root: StoreRoot, tmp_path: Path) -> None:
    told: dict[str, list[float]] = {}

    def watch(name: str) -> Callable[[float], None]:
        return told.setdefault(name, []).append

    built = write_files(tmp_path / "built", LARGE)
    with watching(watch):
        manifest = (
            store_root.host("builder").put(make_spec(), built, stats={}, provenance={}).manifest
        )
        reader = store_root.host("reader")
        assert reader.load("shards", manifest.key).path("shards/0").is_file()
        assert reader.verify("shards", manifest.key, level="full") == ()
    for name in [name for name, fractions in told.items() if not fractions]:
        del told[name]  # sizes alone were compared
    name = f"shards/{manifest.key[:10]}"
    transfers = set() if isinstance(store_root, LocalRoot) else {"uploading", "downloading"}
    assert told.keys() == {
        "hashing 2 files",
        *(f"{what} {name}" for what in {"verifying"} | transfers),
    }
    for fractions in told.values():
        assert len(fractions) > 2
        assert fractions[-1] == max(fractions) == 1
