"""The commands and the Python of docs/api.md run as they stand there."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sknet import predict
from tests.documented import commands
from tests.processes import ROOT
from tests.tiny_pipeline import Trained

PAGE = "docs/api.md"
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(trained: Trained, away: Path) -> Path:
    """The working directory, with a store and photographs."""
    (away / "artifacts").symlink_to(trained.store)
    (away / "photos").mkdir()
    for name in ("a", "b"):
        shutil.copy(trained.images / "val" / "red" / "00.png", away / "photos" / f"{name}.png")
    return away


@pytest.mark.usefixtures("program_state")
def test_the_commands_run(workplace: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    found = commands("docs/api.md")
    assert len(found) == 2
    for command in found:
        name, program, *words = shlex.split(command)
        assert (name, program) == ("sknet", "predict")
        code, out, errors = call(predict, *words)
        assert code == 0, errors
        assert "predicted 2 of 2 images" in out
    assert Path("predictions.json").is_file()
    assert Path("predictions.csv").is_file()


@pytest.mark.usefixtures("program_state")
def test_the_snippets_run_one_after_the_other(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "photos" / "note.png").write_text("no image")
    snippets = SNIPPET.findall((ROOT / PAGE).read_text("utf-8"))
    assert len(snippets) == 5
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, PAGE, "exec"), names)  # noqa: S102 (it is what is tested)
    out = capsys.readouterr().out
    for part in ("photos/a.png", "photos/note.png can't be read", "unsure below", "accuracy@1"):
        assert part in out


def test_importing_the_package_imports_nothing_that_takes_long() -> None:
    program = (
        "import sys, sknet; assert 'Predictor' in dir(sknet); "
        "print(*{name.partition('.')[0] for name in sys.modules}); "
        "assert sknet.__version__"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "sknet" in done.stdout.split()
    assert not {"mindspore", "numpy", "pandas", "pydantic", "PIL"} & set(done.stdout.split())


def test_a_name_that_the_package_has_not_is_refused() -> None:
    import sknet

    with pytest.raises(AttributeError, match="module 'sknet' has no attribute 'predictor'"):
        _ = sknet.predictor
    report = sknet.prediction.stores.StoreReport.__new__(sknet.prediction.stores.StoreReport)
    report.tables = {}
    with pytest.raises(AttributeError, match="a report has no table 'run'"):
        _ = report.run
