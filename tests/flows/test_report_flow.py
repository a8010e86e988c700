"""`python -m flows.report`: its files, the comparison that it prints, and what it refuses."""

import json
import shutil
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from flows import report
from infra.artifacts import open_store
from infra.base.commands import parse
from sknet.report.page import COMPARISON, file_names
from tests.refusals import refusal
from tests.synthetic_store import fill

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flow") / "store"
    fill(root, 2, num_revalidations=3)
    return root


@pytest.fixture
def root(filled: Path, tmp_path: Path) -> Path:
    return shutil.copytree(filled, tmp_path / "store")


def run(*options: object) -> None:
    report.main(parse(report.command, [*map(str, options)]))


def keys_of_reports(root: Path) -> set[str]:
    return {manifest.key for manifest in open_store(str(root)).list("report")}


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only web browser here, which remembers the address that it shows in a file."""
    programs = tmp_path / "programs"
    programs.mkdir()
    address = tmp_path / "address"
    program = programs / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" > {address}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("BROWSER", "browser")
    # The browsers are looked for once in a process.
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    monkeypatch.setattr(webbrowser, "_browsers", {})
    return address


def test_each_choice_and_each_change_of_the_store_makes_a_report_of_its_own(
    flow_harness: None,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    browser: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--store", root, "--out", tmp_path / "out"]
    run(*options, "--open")
    assert browser.read_text("utf-8") == f"{(tmp_path / 'out/report.html').as_uri()}\n"
    first = keys_of_reports(root)
    page = (tmp_path / "out" / "report.html").read_bytes()
    monkeypatch.setenv("BROWSER", "")
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    monkeypatch.setattr(webbrowser, "_browsers", {})
    run(*options, "--open")
    assert capsys.readouterr().err.splitlines()[-1] == (
        "warning: there is no web browser here that --open could use"
    )
    assert keys_of_reports(root) == first
    assert b"data:image/png;base64," in page
    runs = pd.read_parquet(tmp_path / "out" / "runs.parquet")
    assert runs["cost"].isna().all()

    run(*options, "--price", "2.5")
    assert len(keys_of_reports(root)) == 2
    runs = pd.read_parquet(tmp_path / "out" / "runs.parquet")
    assert runs["cost"].tolist() == pytest.approx([2.5 * hours for hours in runs["device-hours"]])
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "out" / "runs.csv", dtype_backend="numpy_nullable")[["run", "cost"]],
        runs[["run", "cost"]],
        check_dtype=False,
    )

    capsys.readouterr()
    newest = runs.loc[0, "key"]
    run(*options, "--compare", "production", newest[:8])
    output = capsys.readouterr().out
    assert "the same samples, McNemar's exact p = " in output
    assert "| recipe | seed" in output
    assert f"report      {tmp_path / 'out' / 'report.html'}" in output
    assert "Accuracy@1 at 32x32: " in (tmp_path / "out" / "comparison.md").read_text("utf-8")
    assert b'id="comparison"' in (tmp_path / "out" / "report.html").read_bytes()
    (tmp_path / "out" / "table.csv").chmod(0o400)
    run(*options)
    assert {path.name for path in (tmp_path / "out").iterdir()} == file_names() - {COMPARISON}
    assert (tmp_path / "out" / "report.html").read_bytes() == page

    thumbnail = next((root / "evaluation").glob("*/example-00.png"))
    manifest = json.loads(thumbnail.with_name("manifest.json").read_text("utf-8"))
    shutil.rmtree(root / "evaluation" / manifest["key"])
    before = len(keys_of_reports(root))
    run(*options)
    assert len(keys_of_reports(root)) == before + 1


def test_a_name_that_stands_for_no_other_run_is_refused_before_any_run_is_read(
    refused: Callable[..., str], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "prepare", lambda: pytest.fail("a server was started"))
    options = ["--store", root, "--out", tmp_path / "out", "--compare", "production"]
    line = refused(report, *options, "nothing")
    assert line.startswith("error: no run or ref 'nothing': expected the beginning of a run's key")
    assert line.endswith("or a ref (production)")
    production = open_store(str(root)).refs.get("production")
    assert production is not None
    line = refused(report, *options, production.key[:3])
    assert line.endswith("give more digits of the key, at least 4")
    line = refused(report, *options, production.key)
    assert f"'production' and '{production.key}' are the same run" in line
    assert not (tmp_path / "out").exists()


def test_a_store_that_cannot_be_written_is_refused_before_any_run_is_read(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    line = refused(report, "--store", "/proc/self", "--out", tmp_path / "out")
    assert line.startswith("error: store '/proc/self' can't be created or written")


@pytest.mark.parametrize("names", [[], ["production"]])
def test_fewer_than_two_runs_to_compare_are_refused_before_the_store_is_read(
    refused: Callable[..., str], names: list[str]
) -> None:
    line = refused(report, "--store", "nowhere", "--compare", *names)
    assert line.startswith(
        f"error: --compare has {repr(names[0]) if names else 'no run'}: name two"
    )


@pytest.mark.parametrize("price", ["-1", "nan", "inf", "much"])
def test_a_wrong_price_is_refused(refused: Callable[..., str], price: str) -> None:
    line = refused(report, f"--price={price}")
    assert line.endswith(f"{price!r} is not a number of at least 0")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("mine", "replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.md").touch()
    (tmp_path / "mine" / "thesis.md").touch()
    return tmp_path


BAD_DIRECTORIES = {
    "file": "DIR/file: DIR/file is a file, expected a directory",
    "file/below/it": "DIR/file/below/it: DIR/file is a file, expected a directory",
    "link": "DIR/link: DIR/link is a file, expected a directory",
    "mine": "DIR/mine has other files than a report's, such as 'thesis.md': expected a new "
    "directory, or one with an earlier report, which is replaced",
    "x" * 256: f"DIR/{'x' * 256} can't be written: File name too long",
    "/proc/report": "/proc/report can't be written: No such file or directory",
    "s3://bucket/x": "'s3://bucket/x' is no path: expected a directory on this host",
    "": "'' is no path: expected a directory on this host",
}


@pytest.mark.parametrize("out", BAD_DIRECTORIES)
def test_a_directory_that_can_t_have_the_report_is_refused_before_the_work(
    refused: Callable[..., str], directory: Path, root: Path, out: str
) -> None:
    before = sorted(directory.rglob("*"))
    given = f"{directory / out}" if out and "://" not in out else out
    line = refused(report, "--store", root, "--out", given)
    expected = BAD_DIRECTORIES[out].replace("DIR", str(directory))
    assert line == f"error: report directory {expected}"
    assert sorted(directory.rglob("*")) == before


def test_a_deployed_report_refuses_its_directory_before_the_work(
    flow_harness: None, directory: Path, root: Path
) -> None:
    message = refusal(lambda: report.report(str(root), str(directory / "mine")))
    assert "has other files than a report's" in message
    assert not keys_of_reports(root)


def test_an_empty_store_has_a_report_that_says_so(flow_harness: None, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    run("--store", tmp_path / "store", "--out", tmp_path / "out")
    assert "There are no runs yet" in (tmp_path / "out" / "report.html").read_text("utf-8")
