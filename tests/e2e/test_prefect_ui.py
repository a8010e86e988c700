"""What people see of a run in Prefect's pages: its graph, its tasks' states, its results."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.browser import WIDE, chromium
from tests.fault_proxy import running_proxy
from tests.prefect_pages import PrefectPages
from tests.prefect_services import PrefectServer
from tests.processes import ROOT
from tests.screenshots import MAX_BYTES, of_prefect
from tests.tiny_pipeline import Trained, run_command, train_command

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect server")]

# Each task with those whose results it takes.
GRAPH = {
    "stage": set(),
    "convert": {"stage"},
    "train": {"convert"},
    "validate": {"convert", "train"},
    "promote": {"train", "validate"},
    "report": {"promote"},
}
STATES = {
    "stage": "Reused",
    "convert": "Rebuilt",
    "train": "Reused",
    "validate": "Built",
    "promote": "Built",
    "report": "Built",
}


@pytest.fixture(scope="module")
def pages(
    trained: Trained, server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrefectPages]:
    """The pages of a run that found a truncated shard, no evaluation and no production."""
    directory = tmp_path_factory.mktemp("ui")
    store = directory / "store"
    shutil.copytree(trained.store, store, copy_function=shutil.copy2)
    for kind in ("evaluation", "promotion", "refs"):
        shutil.rmtree(store / kind)
    os.truncate(next((store / "shards").glob("*/*.mindrecord")), 100)
    command = train_command(trained.recipe, trained.images, store, 2)
    with serving(store) as address:
        ended = run_command(command, **server.environment, SKNET_PAGES_URL=address)
        assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-5000:]
        runs = server.post("flow_runs/filter", {})
        (run,) = [each for each in runs if each["parameters"].get("store") == str(store)]
        with chromium(directory / "profile") as browser:
            yield PrefectPages(browser, server.api, run["id"])


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Serve a directory as `python -m http.server --directory` does; yield the address."""
    handler = partial(QuietHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Logs no requests."""

    def log_message(self, *_: object) -> None:
        pass


def test_the_graph_reads_as_the_pipeline(server: PrefectServer, pages: PrefectPages) -> None:
    graph = server.get(f"flow_runs/{pages.run}/graph-v2")
    nodes = dict(graph["nodes"])
    tasks = {id_: node["label"].rpartition("-")[0] for id_, node in nodes.items()}
    drawn = {
        tasks[id_]: {tasks[parent["id"]] for parent in node["parents"]}
        for id_, node in nodes.items()
    }
    assert drawn == GRAPH
    pages.open_run()
    pages.wait_for_text("Completed", "6 Task runs", "Beginning flow run")


def test_each_task_says_whether_it_was_built_reused_or_rebuilt(pages: PrefectPages) -> None:
    pages.open_run()
    pages.open_tab("Task Runs")
    pages.wait_for_text(*STATES)
    words = pages.browser.text().split("\n")
    seen = {word.rpartition("-")[0]: after for word, after in pairwise(words)}
    assert {task: seen[task] for task in STATES} == STATES


def test_progress_tables_text_and_figure_of_a_run_are_there(pages: PrefectPages) -> None:
    types = {each["key"]: each["type"] for each in pages.artifacts()}
    assert types == {
        "conversion": "progress",
        "evaluation": "progress",
        "tasks": "table",
        "page": "markdown",
        "accuracy": "table",
        "promotion": "table",
        "results": "table",
        "report": "markdown",
        "accuracy-intervals": "image",
    }
    pages.open_artifact("conversion")
    pages.wait_for_text("Progress: 100%")
    pages.open_artifact("report")
    pages.wait_for_text("The page that stands alone is", "SKNet training report")
    broken = "return [...document.images].filter(e => !e.naturalWidth).map(e => e.alt || e.src)"
    assert pages.browser.script(broken) == []
    assert pages.browser.script("return document.images.length") >= 1


def test_the_link_opens_the_report(pages: PrefectPages) -> None:
    pages.open_artifact("page")
    pages.follow_link("report.html")
    pages.wait_for_text("SKNet training report", "At a glance")
    assert pages.browser.script("return document.querySelectorAll('svg').length") > 1


@pytest.mark.parametrize(
    ("mode", "paper"), [("light", (255, 255, 255)), ("dark", (20, 23, 26))], ids=["light", "dark"]
)
def test_a_figure_follows_the_mode_of_the_pages(
    pages: PrefectPages, mode: str, paper: tuple[int, ...]
) -> None:
    pages.switch_to(mode)
    for key in ("accuracy-intervals", "report"):
        pages.open_artifact(key)
        assert pages.paper() == paper


def test_the_list_of_runs_says_which_run_it_is_and_what_became_of_it(
    trained: Trained, pages: PrefectPages
) -> None:
    pages.open_runs()
    pages.wait_for_text(f"tiny {trained.of('train').key[:8]}", "reused", "promoted")
    pages.open_artifact("tasks")
    words = {task: state.lower() for task, state in STATES.items()}
    pages.wait_for_text(*words, *words.values(), "seconds")


@pytest.mark.long
def test_the_pictures_for_the_documentation_are_small(pages: PrefectPages, tmp_path: Path) -> None:
    for path in of_prefect(pages, tmp_path):
        assert path.stat().st_size <= MAX_BYTES
        with Image.open(path) as picture:
            assert picture.width == WIDE
        assert (ROOT / "docs" / path.name).is_file()


def test_the_pages_ask_the_server_at_the_address_at_which_they_were_opened(
    server: PrefectServer, pages: PrefectPages
) -> None:
    """As behind a tunnel, a proxy or a published port, where the server's own may be another's."""
    with running_proxy(int(server.api.split(":")[2].removesuffix("/api"))) as proxy:
        for version, page in (("v2", "v2/deployments"), ("v1", "deployments")):
            pages.browser.open(f"http://127.0.0.1:{proxy.port}/{page}")
            pages.wait_for_text("nightly")
            asked = {urlsplit(each) for each in pages.browser.requested()}
            ports = {each.port for each in asked if each.path.startswith("/api/")}
            assert ports == {proxy.port}, version
