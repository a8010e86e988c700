"""A folder of photographs, looked at, trained, judged by floors and reported as documented."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.artifacts import open_store
from sknet.records import Evaluation, Promotion
from tests.documented import documented
from tests.flow_runs import harness_api
from tests.processes import ROOT

pytestmark = pytest.mark.long

PAGE = "docs/own-photographs.md"
MAX_SECONDS = 1800


def run(directory: Path, words: list[str]) -> str:
    """Run a command in the directory of somebody who has the repository on the path."""
    ended = subprocess.run(
        [str(Path(sys.executable).with_name(words[0])), *words[1:]],
        cwd=directory,
        env={**os.environ, **harness_api(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    return ended.stdout


@pytest.mark.usefixtures("flow_harness")
def test_a_folder_of_photographs_goes_the_whole_way_as_the_page_says(tmp_path: Path) -> None:
    run(tmp_path, documented("python -m tests.photographs", page=PAGE))
    said = run(tmp_path, documented("sknet data", page=PAGE))
    blocks = re.findall(r"```text\n(.*?)```", (ROOT / PAGE).read_text("utf-8"), re.DOTALL)
    assert said == blocks[0]
    assert "val/portrait/05.jpg" in (tmp_path / "photos.html").read_text("utf-8")

    summary = run(tmp_path, documented("sknet run", page=PAGE))
    store = open_store(str(tmp_path / "artifacts"), create=False)
    production = store.refs.get("production")
    assert production is not None and production.kind == "checkpoint"
    (evaluation,) = store.list("evaluation")
    found = store.load("evaluation", evaluation.key)
    counts = Evaluation.read(found.path("evaluation.json"))
    assert (counts.seen, counts.leaked.seen if counts.leaked else 0) == (36, 3)
    (promotion,) = store.list("promotion")
    found = store.load("promotion", promotion.key)
    criteria = Promotion.read(found.path("promotion.json")).criteria
    assert {"balanced accuracy", "recall of portrait"} <= {each.name for each in criteria}
    for line in blocks[1].splitlines():
        assert without_numbers(line) in without_numbers(summary), line


def without_numbers(text: str) -> str:
    """Return a text without its numbers, which are those of one machine."""
    return re.sub(r"\d[\d.]*", "#", text)
