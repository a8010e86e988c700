"""`python -m sknet.graph` compiles without executing; wrong options end in one line."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mindspore import nn

from sknet.graph import __main__ as program
from sknet.training.step import moving_statistics
from tests.sknet.graph.running import run_graph
from tests.sknet.tiny_networks import tiny_network

# Two passes a step, and a dynamic loss scale whose overflows drop an update.
RECIPE = """\
model: tiny
num_classes: 3
image_resize: 32
global_batch_size: 8
gradient_accumulation_steps: 2
epoch_size: 1
lr: 0.01
amp_level: O2
loss_scale_type: dynamic
loss_scale: 1024
drop_overflow_update: true
"""
CLASSES = 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def ended(recipe: Path) -> "subprocess.CompletedProcess[str]":
    """The command for two workers on Ascend, on this machine without cards.

    Nobody reviewed how Ascend computes the derivative of the sigmoid.
    """
    file = recipe.parent / "new" / "graph.json"
    options = ("--workers", "2", "--device_target", "Ascend", "--json", file)
    return run_graph("--recipe", recipe, *options, not_reviewed="SigmoidGrad")


@pytest.fixture(scope="module")
def graph(recipe: Path, ended: object) -> dict[str, list[dict[str, object]]]:
    del ended
    file = recipe.parent / "new" / "graph.json"
    loaded: dict[str, list[dict[str, object]]] = json.loads(file.read_text())
    return loaded


def test_the_file_has_exactly_the_documented_fields(
    graph: dict[str, list[dict[str, object]]],
) -> None:
    assert set(graph) == {"primitives", "collectives"}
    fields = {"primitives": {"name", "count", "dtypes", "platforms"}}
    fields["collectives"] = {"name", "count", "dtype", "fusion"}
    for key, entries in graph.items():
        assert entries
        assert all(set(entry) == fields[key] for entry in entries)


def test_every_convolution_of_every_graph_is_there(
    graph: dict[str, list[dict[str, object]]],
) -> None:
    network = tiny_network(CLASSES)
    convolutions = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.Conv2d)]
    counts = {entry["name"]: entry["count"] for entry in graph["primitives"]}
    # The earlier pass, the step, the evaluation in training, and that of sknet.validate.
    assert counts["Conv2D"] == 4 * len(convolutions)
    assert counts["Conv2DBackpropFilter"] == 2 * len(convolutions)


def test_the_step_is_that_of_several_ranks_and_of_ascend(
    graph: dict[str, list[dict[str, object]]],
) -> None:
    names = {entry["name"] for entry in graph["primitives"]}
    assert {"MaxPool", "ReduceMean"} <= names
    assert not {"MaxPoolWithArgmax", "MaxPool3D", "BatchMatMul"} & names
    # One for each weight, one for the loss and the request to stop, one for each statistic.
    network = tiny_network(CLASSES)
    sums = len(network.trainable_params()) + 1 + len(moving_statistics(network))
    assert graph["collectives"] == [
        {"name": "AllReduce", "count": sums, "dtype": "float32", "fusion": 1}
    ]


def test_the_output_says_what_was_compiled_and_what_is_not_covered(
    ended: "subprocess.CompletedProcess[str]",
) -> None:
    first, *_, last = ended.stdout.splitlines()
    assert first == (
        "compiling tiny for 2 workers on Ascend, with MindSpore's frontend for CPU; "
        "nothing is executed"
    )
    assert last == program.NOT_COVERED
    assert "MaxPoolGrad: Derivative of MaxPool." in ended.stdout


def test_what_is_unfit_for_ascend_ends_with_exit_code_1_and_one_line(
    ended: "subprocess.CompletedProcess[str]",
) -> None:
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert line == (
        "error: the graphs of tiny are unfit for Ascend: SigmoidGrad has no public class that "
        "declares Ascend, and is not reviewed"
    )


@pytest.mark.long
def test_one_worker_on_cpu_has_no_collectives_and_nothing_to_object_to(tmp_path: Path) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text("model: tiny\nimage_resize: 32\nbatch_size: 8\nepoch_size: 1\nlr: 0.01\n")
    options = ("--recipe", plain, "--device_target", "CPU", "--json", tmp_path / "graph.json")
    ended = run_graph(*options)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("compiling plain for 1 worker on CPU")
    assert program.NOT_COVERED not in ended.stdout
    graph = json.loads((tmp_path / "graph.json").read_text())
    assert graph["collectives"] == []
    assert "MaxPoolWithArgmax" in {entry["name"] for entry in graph["primitives"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recipe", "skresnet19_ascend"), "no recipe 'skresnet19_ascend' (did you mean"),
        (
            ("--recipe", "sknet50_paper", "--workers", "3"),
            "global_batch_size 256 can't be divided among 3 workers",
        ),
        (
            ("--recipe", "sknet50_paper", "--device_target", "GPU"),
            "--device_target is 'GPU', expected one of auto, CPU, Ascend",
        ),
        (
            ("--recipe", "sknet50_paper", "--json", "/proc/none/graph.json"),
            "--json /proc/none can't be made",
        ),
    ],
)
def test_wrong_options_are_refused_before_anything_is_compiled(
    refused: Callable[..., str], options: tuple[str, ...], message: str
) -> None:
    assert message in refused(program, *options)


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_a_wrong_number_of_workers_is_refused(workers: str, refused: Callable[..., str]) -> None:
    line = refused(program, "--recipe", "sknet50_paper", "--workers", workers)
    assert line == f"error: --workers: '{workers}' is not a whole number of at least 1"
