"""The graphs of the published recipes have nothing that is unfit for Ascend.

What Ascend's own passes do later is not covered; docs/ascend.md says what only cards can show.
"""

import json
from importlib import resources
from pathlib import Path

import pytest

from infra.launch import Outcome
from sknet.graph.audit import GraphAudit, findings
from sknet.graph.platforms import REVIEWED
from sknet.recipe import list_recipes
from tests.documented import documented
from tests.sknet.graph.running import run_graph
from tests.sknet.ranks import run_ranks

SMALLEST = "skresnet18_ascend"
"""It has every primitive of the others, except SGD."""
OF_OTHER_CHOICES = {"StridedSliceGrad", "Switch"}
"""Primitives of binary cross entropy, and of updates that an overflow drops."""
OTHER_CHOICES = (
    """\
image_resize: 32
opt: lamb
weight_decay: 0.01
clip_grad: true
loss: BCE
label_smoothing: 0.1
mixup: 0.2
drop_path_rate: 0.1
ema: true
""",
    """\
image_resize: 33
opt: adamw
weight_decay: 0.01
clip_grad: true
clip_mode: value
gradient_accumulation_steps: 2
amp_level: O3
loss_scale_type: dynamic
loss_scale: 128
drop_overflow_update: true
""",
)
PAGE = "docs/training.md"
PUBLISHED = [
    *(name for name in list_recipes() if name.endswith("_ascend")),
    *("sknet50_paper", "skresnext50_32x4d_randaug"),
]


def test_recipes_are_published_for_ascend() -> None:
    assert len(PUBLISHED) == 6


@pytest.mark.slow
def test_a_small_network_with_published_choices_is_fit_for_ascend_and_needs_each_review(
    tmp_path: Path,
) -> None:
    published = resources.files("sknet.recipes").joinpath(f"{SMALLEST}.yaml").read_text("utf-8")
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "graph.json"
    recipe.write_text(published.replace("model: skresnet18\n", "model: tiny\n"))
    assert "model: tiny" in recipe.read_text()
    options = ("--recipe", recipe, "--workers", 2, "--device_target", "Ascend", "--json", out)
    check_reviewed(audited(*options, out=out))


@pytest.mark.long
def test_the_documented_command_finds_nothing_unfit_for_ascend_and_no_needless_review(
    tmp_path: Path,
) -> None:
    words = documented("sknet graph", {"graph.json": tmp_path / "graph.json"}, page=PAGE)
    assert SMALLEST in words
    check_reviewed(audited(*words[2:], out=tmp_path / "graph.json"))


def check_reviewed(result: GraphAudit) -> None:
    """Check that the graphs have all reviewed primitives, but for those of other choices."""
    names = {primitive.name for primitive in result.primitives}
    assert set(REVIEWED) - names == OF_OTHER_CHOICES
    assert {collective.name for collective in result.collectives} == {"AllReduce"}


@pytest.mark.long
@pytest.mark.parametrize("recipe", [name for name in PUBLISHED if name != SMALLEST])
def test_the_other_recipes_have_nothing_unfit_for_ascend(recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "graph.json"
    options = ("--recipe", recipe, "--workers", 8, "--device_target", "Ascend", "--json", out)
    audited(*options, out=out)


@pytest.mark.long
@pytest.mark.parametrize("choices", OTHER_CHOICES, ids=["lamb", "adamw"])
def test_what_other_recipes_may_choose_is_fit_for_ascend(choices: str, tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "graph.json"
    recipe.write_text(f"model: tiny\nglobal_batch_size: 8\nepoch_size: 1\nlr: 0.01\n{choices}")
    options = ("--recipe", recipe, "--workers", 2, "--device_target", "Ascend", "--json", out)
    audited(*options, out=out)


@pytest.mark.long
def test_two_real_ranks_compile_the_graphs_that_the_command_compiles_alone(tmp_path: Path) -> None:
    lines: list[str] = []
    program = Path(__file__).with_name("compiling_ranks.py")
    result = run_ranks(program, "--out", tmp_path, directory=tmp_path, on_line=lines.append)
    assert result.status is Outcome.DONE, "\n".join(lines)
    alone = tmp_path / "alone.json"
    options = ("--recipe", SMALLEST, "--workers", 2, "--device_target", "CPU", "--json", alone)
    assert run_graph(*options).returncode == 0
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == json.loads(alone.read_text())


def audited(*options: object, out: Path) -> GraphAudit:
    """Run the command, which has to succeed, and return what it wrote."""
    ended = run_graph(*options)
    assert ended.stderr == ""
    assert ended.returncode == 0
    result = GraphAudit.read(out)
    assert not list(findings(result))
    return result
