"""A store's checkpoint is exported with its own data and evaluation, as docs/export.md says."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from sknet import export
from sknet.records.exported import ExportedFile
from tests.documented import commands
from tests.tiny_pipeline import Trained

Call = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("program_state")


@pytest.fixture
def workplace(trained: Trained, away: Path) -> Path:
    """The working directory, with what the page's commands name."""
    (away / "artifacts").symlink_to(trained.store)
    # Shards instead of photographs, whose conversion starts processes and takes seconds.
    (away / "photos").symlink_to(trained.store / "shards" / trained.of("convert").key)
    (away / "ckpt").mkdir()
    checkpoint = trained.store / "checkpoint" / trained.of("train").key
    (away / "ckpt" / "step-00000100").symlink_to(checkpoint)
    return away


@pytest.mark.slow
def test_the_commands_of_the_page_run(workplace: Path, call: Call) -> None:
    of_store, of_directory = commands("docs/export.md")
    for command, expected_from in ((of_store, "evaluation"), (of_directory, "network")):
        name, program, *words = shlex.split(command)
        assert (name, program) == ("sknet", "export")
        code, out, errors = call(export, *words)
        assert code == 0, errors
        said = f"it predicts the class of the {expected_from} for 18 of 18 validation images"
        assert out.splitlines()[-1].endswith(said)
        comparison = ExportedFile.read(workplace / "model.onnx.json").comparison
        assert comparison is not None
        assert (comparison.expected_from, comparison.seen) == (expected_from, 18)


def test_a_wrong_ref_and_options_for_a_checkpoint_in_no_store_are_refused(
    workplace: Path, refused: Callable[..., str]
) -> None:
    store = ["--store", "artifacts"]
    line = refused(export, *store, "--ckpt_path", "staging")
    assert line.startswith("error: store artifacts has no ref 'staging', expected one of its refs")
    for option in ("--data_dir", "--evaluation"):
        line = refused(export, *store, option, "photos")
        assert line.startswith(f"error: {option} is for a checkpoint in no store")
    assert refused(export, "--store", "none").startswith("error: store 'none' does not exist")
