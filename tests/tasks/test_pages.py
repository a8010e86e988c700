"""Names and tags of flow runs, and links to files of artifacts, as Prefect's server has them."""

from pathlib import Path
from typing import NoReturn
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.utilities.names import generate_slug

import tasks.pages
from infra.artifacts import Artifact, ArtifactSpec, open_store
from tasks.pages import complete_run_name, is_chosen_by_prefect, link_to, run_name, tag_run
from tests.store_roots import S3Root
from tests.tiny_pipeline import shown_by

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flow_harness")]


@flow(flow_run_name=run_name(lambda recipe, **_: recipe))
def train(recipe: str = "digits") -> None:
    complete_run_name(f"{recipe} 60b2eb36")
    tag_run("built", "promoted")


def run(name: str | None, **parameters: str) -> FlowRun:
    """Run the flow, created with this name as `prefect deployment run --name` does."""
    with get_client(sync_client=True) as client:
        created = client.create_flow_run(train, name=name, tags=["night"], parameters=parameters)
        run_flow(train, flow_run=created, parameters=parameters)
        return client.read_flow_run(created.id)


def test_a_run_is_named_by_recipe_and_key_and_tagged_by_its_outcome() -> None:
    first, other = run(None), run(None, recipe="imagenet")
    assert (first.name, other.name) == ("digits 60b2eb36", "imagenet 60b2eb36")
    assert set(first.tags) == {"night", "built", "promoted"}


def test_every_name_that_prefect_chooses_is_known_as_such() -> None:
    names = {generate_slug(2) for _ in range(2000)}
    assert all(map(is_chosen_by_prefect, names))


@pytest.mark.parametrize("name", ["my-dog", "dig", "digits 60b2eb36"])
def test_a_name_that_the_user_gave_stays(name: str) -> None:
    assert run(name).name == name


def test_a_server_that_is_away_costs_a_warning_and_not_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(tasks.pages, "get_client", refuse)
    assert run(None).name == "digits"
    assert caplog.text.count("not shown on Prefect's pages: connection refused") == 2


def put_page(store_uri: str, directory: Path) -> Artifact:
    """Return an artifact that has `page.html`."""
    directory.mkdir()
    (directory / "page.html").write_text("<p>all</p>", "utf-8")
    spec = ArtifactSpec(kind="report", format_version=1, params={}, inputs={})
    return open_store(store_uri).put(spec, directory, stats={}, provenance={})


def shown_link(page: Artifact, store_uri: str) -> tuple[str, str]:
    """Return what the pages show of the link, and its description."""

    @flow
    def report() -> None:
        link_to(page, "page.html", store_uri, key="page", description="All runs")

    state = report(return_state=True)
    artifact = shown_by(UUID(str(state.state_details.flow_run_id)))["page"]
    return str(artifact.data), str(artifact.description)


def test_a_file_is_shown_by_its_address_as_browsers_do_not_follow_it(tmp_path: Path) -> None:
    store = str(tmp_path / "a store")
    page = put_page(store, tmp_path / "new")
    address = page.path("page.html").as_uri()
    assert "%20store" in address
    data, description = shown_link(page, store)
    assert data == f"[{address}]({address})"
    assert description == "All runs; browsers refuse to open a file from here: copy its address"


def test_a_link_to_a_served_store_leads_to_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = put_page(str(tmp_path / "store"), tmp_path / "new")
    monkeypatch.setenv("SKNET_PAGES_URL", "https://pages.example/store/")
    address = f"https://pages.example/store/report/{page.manifest.key}/page.html"
    assert shown_link(page, str(tmp_path / "store")) == (f"[page.html]({address})", "All runs")


def test_a_link_to_s3_opens_the_page(s3_server: object, tmp_path: Path) -> None:
    store = S3Root(tmp_path / "hosts").uri
    page = put_page(store, tmp_path / "new")
    data, description = shown_link(page, store)
    answer = httpx.get(data.removeprefix("[page.html](").removesuffix(")"))
    assert (answer.text, answer.headers["content-type"]) == ("<p>all</p>", "text/html")
    assert description == "All runs; the link is valid for 7 days"
