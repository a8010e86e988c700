"""A program tells its launcher how it ended; what is no outcome counts as none."""

from pathlib import Path

import pytest

from infra.base.outcomes import Outcome, OutcomeReport, read_outcome, write_outcome

KNOWN_TO_LAUNCHER_ONLY = {Outcome.LOST_WORKER, Outcome.OUT_OF_MEMORY}


@pytest.mark.parametrize("status", sorted(set(Outcome) - KNOWN_TO_LAUNCHER_ONLY))
def test_an_outcome_is_read_as_it_was_written(tmp_path: Path, status: Outcome) -> None:
    path = tmp_path / "outcome.json"
    write_outcome(path, status, "why")
    report = read_outcome(path)
    assert report is not None
    assert (report.status, report.message) == (status, "why")


def test_the_last_writer_wins_and_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    write_outcome(path, Outcome.FAILED, "first")
    write_outcome(path, Outcome.DONE, "last")
    assert read_outcome(path) == OutcomeReport(status=Outcome.DONE, message="last")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"\xff"),
        *(b'{"status": "done"}', b'{"status": "fine", "message": ""}'),
        b'{"status": "lost_worker", "message": ""}',
    ],
)
def test_a_file_that_is_no_outcome_counts_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outcome.json"
    assert read_outcome(path) is None
    path.write_bytes(content)
    assert read_outcome(path) is None
