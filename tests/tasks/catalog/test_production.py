"""The ref to production, its mark, and which revalidations make up for late ones."""

from datetime import timedelta
from pathlib import Path

import pytest

from infra.artifacts import Ref, RefConflictError, Refs, StoreError
from tasks.catalog.production import (
    MAX_CONFLICTS,
    mark_production,
    promoted,
    revalidation_since,
)
from tests.synthetic_store import BEGIN, Filler


@pytest.fixture
def filler(tmp_path: Path) -> Filler:
    """A store with two runs, the first of which is production."""
    filler = Filler(tmp_path / "store")
    checkpoint, evaluation = filler.run(0)
    assert evaluation is not None
    filler.promote(checkpoint, evaluation)
    filler.run(1)
    return filler


def production(filler: Filler) -> Ref:
    return promoted(str(filler.store.root))


def move_to_the_other_run(filler: Filler) -> None:
    current = production(filler)
    (other,) = [m for m in filler.store.list("checkpoint") if m.key != current.key]
    filler.store.refs.set("production", other, expected=current, reason="another one")


def test_a_store_without_production_is_refused_in_one_line(tmp_path: Path) -> None:
    Filler(tmp_path / "store")
    with pytest.raises(
        StoreError, match=r"^.* has no refs/production.json: run train-sknet [^\n]*$"
    ):
        promoted(str(tmp_path / "store"))


def test_a_ref_that_points_to_something_else_than_a_checkpoint_is_refused_in_one_line(
    filler: Filler,
) -> None:
    current = production(filler)
    filler.store.refs.set("production", filler.shards, expected=current, reason="by mistake")
    with pytest.raises(StoreError, match=r"points to shards/[^\n]* expected a checkpoint: [^\n]*$"):
        production(filler)


def test_a_mark_is_set_once_and_taken_away(filler: Filler) -> None:
    ref = production(filler)
    for suspect in ("2 samples differ", "2 samples differ", None):
        assert mark_production(filler.store, ref, suspect=suspect, reason="revalidation")
        assert production(filler).suspect == suspect
    history = filler.store.refs.history("production")
    assert [entry.suspect for entry in history] == [None, "2 samples differ", None]
    assert {entry.key for entry in history} == {ref.key}


def test_a_former_production_is_not_marked(filler: Filler) -> None:
    ref = production(filler)
    move_to_the_other_run(filler)
    assert not mark_production(filler.store, ref, suspect="2 samples differ", reason="late")
    assert production(filler).suspect is None


def test_marking_is_given_up_after_several_conflicts(
    filler: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved_meanwhile(*_: object, **__: object) -> Ref:
        raise RefConflictError("moved")

    monkeypatch.setattr(Refs, "set", moved_meanwhile)
    with pytest.raises(RefConflictError, match=f"moved {MAX_CONFLICTS} times while it was marked"):
        mark_production(filler.store, production(filler), suspect="2 differ", reason="revalidation")


def test_a_revalidation_makes_up_for_those_that_were_due_before_it_began(filler: Filler) -> None:
    (checkpoint,) = [m for m in filler.store.list("checkpoint") if m.key == production(filler).key]
    assert revalidation_since(filler.store, BEGIN) is None
    for number in (1, 2):
        filler.revalidate(number, checkpoint)
    newest = BEGIN + timedelta(days=2, hours=18)
    for due in (BEGIN, newest):
        found = revalidation_since(filler.store, due)
        assert found is not None
        assert found.params["began"] == newest.isoformat()
    assert revalidation_since(filler.store, newest + timedelta(microseconds=1)) is None
