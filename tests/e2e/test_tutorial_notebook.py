"""docs/tutorial.ipynb runs: cheaply on a store that is filled already, and as it stands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest

from flows.console import console
from infra.base.commands import start
from tests.processes import ROOT
from tests.tiny_pipeline import Trained

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
COMMAND = re.compile(r"^!(.+)$", re.MULTILINE)
HANG_SECONDS = 3600


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def sources(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: nbformat.NotebookNode) -> str:
    """Return all text that the cells of a notebook have put out."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = []
    for output in (output for cell in cells for output in cell.outputs):
        texts.append(output.get("text", ""))
        texts.append(output.get("data", {}).get("text/plain", ""))
    return "\n".join(texts)


@pytest.fixture
def workplace(copied_store: Path, trained: Trained, tmp_path: Path) -> Iterator[Path]:
    """A working directory with the images of a finished run; drawings go nowhere."""
    before, backend = Path.cwd(), mpl.get_backend()
    mpl.use("Agg")
    os.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(trained.images)
    yield tmp_path
    os.chdir(before)
    mpl.use(backend)


def run_command(line: str) -> None:
    name, *words = shlex.split(line)
    assert name == "sknet"
    assert start(console(), words) == 0, line


@pytest.mark.slow
@pytest.mark.usefixtures("flow_harness")
def test_every_cell_runs_on_another_folder_whose_run_is_finished(
    notebook: nbformat.NotebookNode,
    workplace: Path,
    copied_store: Path,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names: dict[str, object] = {"run_command": run_command}
    changed = {
        "data": "photos",
        "store": str(copied_store),
        "options": f"--recipe {trained.recipe}",
        "error_rate": 0.99,
    }
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        # In a notebook, a line that begins with ! is a command in which {…} is filled in.
        source = COMMAND.sub(lambda found: f"run_command(f{found[1]!r})", cell.source)
        # Jupyter shows the value of the last line.
        exec(compile(source, str(NOTEBOOK), "exec"), names)  # noqa: S102 (it is what is tested)
        if "parameters" in cell.metadata.get("tags", ()):
            assert changed.keys() <= names.keys()
            names |= changed
    said = capfd.readouterr().out
    assert "18 validation images" in said
    assert "the exported file agrees on 18 of 18 images" in said
    assert len(json.loads((workplace / "predictions.json").read_text())["predictions"]) == 18


def test_the_notebook_has_the_outputs_of_all_its_cells_and_no_path_of_a_machine(
    notebook: nbformat.NotebookNode,
) -> None:
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}, "no error"
    text = outputs(notebook)
    assert not re.search(r"/(home|root|tmp|work|usr)/", text)
    assert "\x1b" not in text
    agreed = re.search(r"the exported file agrees on (\d+) of (\d+) images", text)
    assert agreed is not None
    assert agreed[1] == agreed[2]


@pytest.mark.long
def test_the_notebook_runs_in_a_kernel_as_it_stands(tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    shutil.copy(NOTEBOOK, tmp_path)
    done = subprocess.run(
        [programs / "jupyter-execute", "--output", "executed.ipynb", NOTEBOOK.name],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = outputs(nbformat.read(tmp_path / "executed.ipynb", as_version=4))
    found = re.search(r"(\d+) of (\d+) validation images are predicted right", text)
    assert found is not None
    assert int(found[2]) == 181
    assert int(found[1]) > 0.9 * 181
    assert "the exported file agrees on 181 of 181 images" in text
