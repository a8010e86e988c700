"""What Prefect's pages show of a flow run as a whole: its name, its tags, a link to its report."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast
from urllib.parse import quote

import httpx
from coolname.data import config
from prefect import get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from infra.artifacts import Artifact

KEY_DIGITS = 8
"""Digits of an artifact's key in the name of a run."""

LINK_DAYS = 7
"""Days for which a link to an object on S3 is valid: the most that S3 allows."""

_LISTS = cast("Mapping[str, Mapping[str, list[str]]]", config)
"""The lists of coolname, with which Prefect makes names: each has words, or names other lists."""


def _words(name: str) -> set[str]:
    parts = _LISTS[name]
    if "words" in parts:
        return set(parts["words"])
    return {word for part in parts["lists"] for word in _words(part)}


# Prefect's names have two words: one of each list.
_ADJECTIVES, _ANIMALS = _words("adj_any"), _words("subj")


@contextmanager
def worth_no_failure() -> Iterator[None]:
    """Go on, with a warning, if the body can't show something because the server is away."""
    try:
        yield
    except httpx.HTTPError as error:
        get_run_logger().warning("not shown on Prefect's pages: %s", error)


def run_name(name_of: Callable[..., str]) -> Callable[[], str]:
    """Return the `flow_run_name` of a flow: the name that a function makes of its parameters.

    It replaces the adjective and the animal that Prefect chose. A name that the user gave stays, as
    does that of a run that is retried.
    """

    def name() -> str:
        context = FlowRunContext.get()
        if context is None or (run := context.flow_run) is None:
            raise AssertionError("a name is asked for outside a flow run")
        if is_chosen_by_prefect(run.name):
            return name_of(**(context.parameters or {}))
        return run.name

    return name


def is_chosen_by_prefect(name: str) -> bool:
    """Tell whether a run's name is one that Prefect chooses, such as `woodoo-beluga`."""
    adjective, _, animal = name.partition("-")
    return adjective in _ADJECTIVES and animal in _ANIMALS


def complete_run_name(name: str) -> None:
    """Give the flow run a name that begins with its present one, unless the user named it."""
    context = FlowRunContext.get()
    if context is None or (run := context.flow_run) is None or not name.startswith(f"{run.name} "):
        return
    with worth_no_failure(), get_client(sync_client=True) as client:
        client.set_flow_run_name(run.id, name)
        run.name = name


def tag_run(*tags: str) -> None:
    """Add tags to the flow run. The list of runs shows them, and can be filtered by them."""
    context = FlowRunContext.get()
    if context is None or (run := context.flow_run) is None:
        return
    with worth_no_failure(), get_client(sync_client=True) as client:
        client.update_flow_run(run.id, tags=sorted({*run.tags, *tags}))


def link_to(artifact: Artifact, file: str, store_uri: str, *, key: str, description: str) -> None:
    """Show a link to a file of an artifact; docs/operations.md says which links open where.

    The link is below `SKNET_PAGES_URL`, the address of a web server that serves the store, if that
    is set. Otherwise it opens the object on S3 with this host's credentials, or names the file.
    """
    path = f"{artifact.manifest.kind}/{artifact.manifest.key}/{file}"
    text: str | None = file
    if base := os.environ.get("SKNET_PAGES_URL"):
        link = f"{base.rstrip('/')}/{quote(path)}"
    elif store_uri.startswith("s3://"):
        from infra.s3 import Bucket  # it takes most of a second

        link = Bucket(store_uri).link(path, seconds=LINK_DAYS * 86400, content_type="text/html")
        description += f"; the link is valid for {LINK_DAYS} days"
    else:
        link, text = artifact.path(file).as_uri(), None  # the address itself, to be copied
        description += "; browsers refuse to open a file from here: copy its address"
    create_link_artifact(link, link_text=text, key=key, description=description)
