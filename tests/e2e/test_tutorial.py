"""A folder of photographs, two commands, and a prediction: the tutorial and the README's start."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from infra.artifacts import open_store
from tests.documented import commands, documented
from tests.e2e.test_readme import SHORTER, run
from tests.processes import ROOT
from tests.tiny_pipeline import Trained

PAGE = "docs/tutorial.md"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the settings of Prefect's commands, as the repository has them."""
    shutil.copy(ROOT / "prefect.toml", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_photo_is_predicted_by_the_command_and_by_five_lines_of_python(
    directory: Path, trained: Trained
) -> None:
    shutil.copytree(trained.store, directory / "artifacts", copy_function=shutil.copy2)
    shutil.copy(next(trained.images.glob("val/*/*")), directory / "photo.jpg")
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(snippet.strip().splitlines()) <= 5
    # One process, as MindSpore's import takes most of the time.
    both = (
        "from flows.console import console; from infra.base.commands import start\n"
        f"assert start(console(), {documented('sknet predict')[1:]!r}) == 0\n{snippet}"
    )
    printed = run(directory, [sys.executable, "-c", both])
    ((name, percent),) = re.findall(r"^photo\.jpg: (\S+) ([\d.]+%)", printed, re.MULTILINE)
    (same,) = re.findall(rf"^{name} (\d\.\d+(?:e-\d+)?)$", printed, re.MULTILINE)
    assert percent == f"{float(same):.1%}"


@pytest.mark.long
def test_the_commands_of_the_tutorial_lead_from_a_folder_to_a_prediction(directory: Path) -> None:
    run(directory, documented("python -m tests.photographs", page=PAGE), PYTHONPATH=str(ROOT))
    train = documented("sknet run", page=PAGE)
    assert train == documented("sknet run --source")
    output = run(directory, [*train, *SHORTER])
    assert "skresnet18_folder" in output
    production = open_store(str(directory / "artifacts"), create=False).refs.get("production")
    assert production is not None
    shutil.copy(directory / "photos/val/temple/00.jpg", directory / "photo.jpg")
    assert documented("sknet predict photo.jpg", page=PAGE) == documented("sknet predict")
    for command in commands(PAGE):
        if command.startswith(("sknet predict", "sknet data")):
            run(directory, documented(command, page=PAGE))
    printed = run(directory, documented("sknet predict"))
    assert re.search(r"^photo\.jpg: (flower|portrait|temple) ", printed, re.MULTILINE)
