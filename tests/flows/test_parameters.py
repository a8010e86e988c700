"""What a deployment's run is given: refused by its form, or by the flow before its first task."""

from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.utilities.schema_tools import validate

from flows.report import report
from flows.revalidate import revalidate
from flows.train_sknet import command, train_sknet
from infra.base.commands import parse
from sknet.errors import UserError
from sknet.recipe import list_recipes
from tests.tiny_pipeline import write_recipe

FLOWS = {flow.name: flow for flow in (train_sknet, revalidate, report)}


def accepts(flow: Flow[..., Any], values: dict[str, object]) -> bool:
    """Tell whether Prefect's server, and the form on its page, accept these parameters."""
    schema = flow.parameters.model_dump()
    return not validate(values, schema, preprocess=True, raise_on_error=False)


@pytest.mark.parametrize(
    ("flow", "wrong", "right"),
    [
        ("train-sknet", {"workers": 0}, {"workers": 1}),
        ("train-sknet", {"workers": "many"}, {"workers": 7}),
        ("train-sknet", {"device_target": "GPU"}, {"device_target": "CPU"}),
        ("train-sknet", {"recipe": 18}, {"recipe": "skresnet18_digits"}),
        ("train-sknet", {"launch": {"launcher": "cloud"}}, {"launch": {"launcher": "ray:auto"}}),
        ("train-sknet", {"launch": {"launcher": "ray://"}}, {"launch": {"launcher": "ray://a:1"}}),
        ("train-sknet", {"launch": {"hosts": 0}}, {"launch": {"hosts": 1}}),
        ("train-sknet", {"launch": {"host": 1}}, {"launch": {}}),
        ("train-sknet", {"conversion": {"shards": 0}}, {"conversion": {"shards": "auto"}}),
        ("train-sknet", {"conversion": {"quality": 101}}, {"conversion": {"quality": 100}}),
        ("train-sknet", {"floors": {"balanced_floor": 80}}, {"floors": {"balanced_floor": 0.8}}),
        (
            "train-sknet",
            {"floors": {"class_floor": {"cat": 90}}},
            {"floors": {"class_floor": {"cat": 0.9}}},
        ),
        ("revalidate", {"tolerance": 1.5}, {"tolerance": 0.5}),
        ("report", {"price": -1}, {"price": 1.5}),
        ("report", {"compare": ["production"]}, {"compare": ["production", "former"]}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_the_form_of_a_run_refuses_what_can_be_seen_at_once(
    flow: str, wrong: dict[str, object], right: dict[str, object]
) -> None:
    assert accepts(FLOWS[flow], right)
    assert not accepts(FLOWS[flow], wrong)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_form_describes_every_parameter(flow: str) -> None:
    schema = FLOWS[flow].parameters.model_dump()
    described = [schema["properties"]]
    described += [each["properties"] for each in schema["definitions"].values()]
    missing = [
        name
        for properties in described
        for name in properties
        if not properties[name].get("description")
    ]
    assert missing == []


def test_the_form_offers_the_recipes_of_the_project_and_takes_a_file() -> None:
    offered, file = train_sknet.parameters.properties["recipe"]["anyOf"]
    assert offered["enum"] == list_recipes()
    assert (file["type"], "enum" in file) == ("string", False)


@pytest.mark.slow
@pytest.mark.usefixtures("flow_harness")
@pytest.mark.parametrize(
    ("flow", "values", "message"),
    [
        ("train-sknet", {"workers": 7}, "global_batch_size 8 can't be divided among 7 workers"),
        ("train-sknet", {"device_target": "Ascend"}, "no Ascend card"),
        ("train-sknet", {"data": "nowhere"}, "data directory nowhere does not exist"),
        ("train-sknet", {"overrides": ["lr=fast"]}, "lr is 'fast'"),
        ("train-sknet", {"overrides": ["num_classes=7"]}, "but the data set has 10 classes"),
        (
            "train-sknet",
            {"floors": {"class_floor": {"10": 0.9}}},
            "names '10', but the data has no",
        ),
        ("train-sknet", {"workers": 8}, "each of 8 workers gets one image in a forward pass"),
        ("revalidate", {}, "store"),
        ("report", {}, "store"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_a_flow_refuses_the_rest_before_its_first_task(
    flow: str,
    values: dict[str, object],
    message: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given: dict[str, object] = {"store": str(tmp_path / "store"), **values}
    if flow == "train-sknet":
        given["recipe"] = str(write_recipe(tmp_path / "tiny.yaml"))

    state = FLOWS[flow](**given, return_state=True)

    with pytest.raises(UserError, match=message):
        state.result()
    assert "Traceback" not in caplog.text
    with get_client(sync_client=True) as client:
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        assert client.read_task_runs(flow_run_filter=of_run) == []
    assert not any(path.is_file() for path in (tmp_path / "store").rglob("*"))


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        ((), "skresnet18_digits"),
        (("--source", "photos"), "skresnet18_folder"),
        (("--data", "s3://bucket/photos"), "skresnet18_folder"),
        (("--data", "digits?val=0.2"), "skresnet18_digits"),
        (("--data", "fashion-mnist:DIR"), "skresnet18_fashion_mnist"),
        (("--data", "photos", "--recipe", "mine.yaml"), "mine.yaml"),
    ],
    ids=str,
)
def test_the_data_choose_the_recipe_unless_one_is_given(
    words: tuple[str, ...], recipe: str
) -> None:
    assert parse(command, words).recipe == recipe
    assert recipe in [*list_recipes(), "mine.yaml"]
