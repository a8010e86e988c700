"""Every command in the pages is run by a test, or its page says where to run it."""

import re
import shlex
from pathlib import Path

import pytest

import flows.revalidate
from flows.console import COMMANDS, console
from flows.train_sknet import command as train_command
from flows.train_sknet import settings_of
from infra.base.commands import parse
from sknet.judgement import SIGNIFICANCE, TOLERANCE, Candidate, Floors, Production, judge_promotion
from sknet.recipe import list_recipes
from sknet.records import CheckpointChecks
from tests.documented import commands
from tests.processes import ROOT

# Start of a command in the README → the file that runs what `documented` returns for it.
RUN_BY = {
    "make demo": "tests/e2e/test_demo.py",
    "make test": "tests/e2e/test_demo.py",
    "make bench": "tests/e2e/test_demo.py",
    "sknet run --source": "tests/e2e/test_tutorial.py",
    "sknet predict": "tests/e2e/test_tutorial.py",
    "sknet data": "tests/e2e/test_readme.py",
    "sknet run --recipe": "tests/e2e/test_readme.py",
    "msrun": "tests/e2e/test_readme.py",
    "sknet train": "tests/e2e/test_readme.py",
    "sknet validate": "tests/e2e/test_readme.py",
    "sknet convert": "tests/e2e/test_readme.py",
    "sknet models": "tests/docs/test_front_page.py",
    "sknet export": "tests/e2e/test_readme.py",
    "sknet store ls": "tests/e2e/test_readme.py",
    "sknet store verify": "tests/e2e/test_readme.py",
    "sknet store refs": "tests/e2e/test_readme.py",
    "sknet report": "tests/e2e/test_readme.py",
    "sknet revalidate": "tests/e2e/test_readme.py",
    "prefect server start": "tests/e2e/conftest.py",
    "export PREFECT_API_URL": "tests/e2e/conftest.py",
    "python -m infra.prefect": "tests/e2e/test_postgresql.py",
    "prefect worker start": "tests/e2e/conftest.py",
    "prefect deployment run": "tests/e2e/test_deployment_cycle.py",
}
# Other pages → the file that runs their commands, and a text in it that names the page.
RUN_BY_PAGE = {
    "docs/api.md": ("tests/sknet/prediction/test_api_page.py", 'commands("docs/api.md")'),
    "docs/command.md": (
        "tests/flows/test_console.py",
        'documented_commands("docs/command.md")',
    ),
    "docs/artifacts.md": (
        "tests/infra/artifacts/test_artifacts_docs.py",
        '"docs" / "artifacts.md"',
    ),
    "docs/data.md": ("tests/sknet/data/test_data_page.py", 'page="docs/data.md"'),
    "docs/contributing.md": ("tests/e2e/test_demo.py", 'documented("make test")'),
    "docs/export.md": ("tests/sknet/test_export_store.py", 'commands("docs/export.md")'),
    "docs/evaluation.md": (
        "tests/e2e/test_readme.py",
        'documented("sknet validate", step, page=page)',
    ),
    "docs/passport.md": ("tests/tasks/catalog/test_passports.py", 'commands("docs/passport.md")'),
    "docs/revalidation.md": (
        "tests/infra/artifacts/test_artifacts_docs.py",
        'commands("docs/revalidation.md")',
    ),
    "docs/recipes.md": ("tests/e2e/test_readme.py", 'page="docs/recipes.md"'),
    "docs/own-photographs.md": (
        "tests/long/test_own_photographs.py",
        'documented("sknet data", page=PAGE)',
    ),
    # Parsed here: the first is the README's, and tests/flows/test_report_flow.py runs the options.
    "docs/reports.md": ("tests/docs/test_pages.py", "def test_every_command_of_a_page"),
    "docs/training.md": (
        "tests/sknet/graph/test_published_recipes.py",
        'documented("sknet graph"',
    ),
    "docs/tutorial.md": ("tests/e2e/test_tutorial.py", "for command in commands(PAGE)"),
    "infra/prefect/README.md": ("tests/e2e/conftest.py", 'page="infra/prefect/README.md"'),
    "infra/s3/README.md": ("tests/infra/s3/test_s3_server.py", 'page="infra/s3/README.md"'),
}
# Pages with commands that no test can run, and the words in which they say so.
ELSEWHERE = {
    "docs/ascend.md": "this page lists what has to be run there",
    "docs/clusters.md": "Commands for a machine with Ascend",
    "docs/fashion-mnist.md": "DIR holds the four IDX files, as Debian's `dataset-fashion-mnist`",
    "docs/operations.md": "The commands on this page need your own store, server or devices",
    "docs/reliability.md": "It takes about a minute for a point",
    "docs/imagenet.md": "The commands are for such a machine and were not run on one",
}
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
PAGES = ["README.md", "infra/prefect/README.md", "infra/s3/README.md", *DOCS]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
OURS = {module.partition(":")[0]: name for name, (module, _) in COMMANDS.items()}
COMMAND = re.compile(
    r"(?:[A-Za-z_]+=\S+ )*(?:\.venv/bin/)?(?:python|sknet|msrun|ray|prefect|make|msprof)\S* -?\w"
)


@pytest.mark.parametrize("command", commands())
def test_a_documented_command_is_run_by_a_test(command: str) -> None:
    (start,) = [start for start in RUN_BY if command.startswith(start)]
    assert f'documented("{start}"' in (ROOT / RUN_BY[start]).read_text("utf-8")


def test_no_test_runs_a_command_that_is_not_documented() -> None:
    assert {start for start in RUN_BY for c in commands() if c.startswith(start)} == set(RUN_BY)


@pytest.mark.parametrize("page", PAGES[1:])
def test_the_commands_of_a_page_are_run_by_a_test(page: str) -> None:
    for command in commands(page):
        bench = re.match(r"python -m tests\.bench\.(\w+)", command)
        if bench:
            files = [*(ROOT / "tests/bench").glob("test_*.py"), ROOT / "tests/docs/test_scale.py"]
            tests = [path.read_text("utf-8") for path in files]
            assert any(f'"tests.bench.{bench[1]}"' in text for text in tests), command
        else:
            test, word = RUN_BY_PAGE[page]
            assert word in (ROOT / test).read_text("utf-8"), command


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_where_to_run_the_commands_that_no_test_runs(page: str) -> None:
    not_run = [line for line in text_blocks(page) if COMMAND.match(line)]
    text = " ".join((ROOT / page).read_text("utf-8").split())
    assert not not_run or ELSEWHERE.get(page, "nowhere") in text, not_run


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_understood(page: str) -> None:
    for words in command_lines(page):
        _, bound, _ = console().parse_args(words, exit_on_error=False, print_error=False)
        (given,) = bound.args or (None,)
        recipe = getattr(given, "recipe", None) or getattr(given, "config", None)
        assert recipe in (None, *list_recipes()) or str(recipe).endswith(".yaml"), words


@pytest.mark.parametrize("page", PAGES)
def test_a_sentence_of_a_page_names_commands_and_options_that_exist(page: str) -> None:
    for code in re.findall(r"`(sknet [^`]+)`", BLOCK.sub("", (ROOT / page).read_text("utf-8"))):
        _, called, words = console().parse_commands(code.split()[1:])
        assert len(called) > 1 or code == "sknet COMMAND --help", code
        for word in words:
            if word.startswith("--") and word != "--help":
                called[-1].assemble_argument_collection().match(word.partition("=")[0])


@pytest.mark.parametrize("page", PAGES)
def test_links_are_valid(page: str) -> None:
    directory = (ROOT / page).parent
    for target, anchor in re.findall(
        r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", (ROOT / page).read_text("utf-8")
    ):
        file = directory / target if target else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text("utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").as_posix()
        assert path == "README.md" or f"]({path})" in index, path


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_every_file_of_the_documented_tree_exists(page: str) -> None:
    tree = re.search(r"```text\nprefect\.yaml.*?```", (ROOT / page).read_text(), re.DOTALL)
    assert tree is not None
    parent = ROOT
    for line in tree[0].splitlines()[1:-1]:
        names = re.match(r"( *)(\S+(?: \S+)*?)(?:   *|$)", line)
        assert names is not None
        if not names[1]:
            parent = ROOT
        for name in names[2].split():
            assert (parent / name).exists(), line
        if not names[1] and names[2].endswith("/"):
            parent = ROOT / names[2]


def test_the_page_on_revalidation_names_every_criterion_and_its_commands_are_understood() -> None:
    page = (ROOT / "docs/revalidation.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", page, re.MULTILINE))
    production = Production("a" * 64, ("cat",), None, "", None)
    checks = CheckpointChecks(checks=())
    candidate = Candidate("c" * 64, ("n01",), ("CLASS",), checks, None, None, False)
    floors = Floors(class_floor={"CLASS": 0.5})
    judgement = judge_promotion(candidate, production, floor=0.5, floors=floors, by_hand="")
    assert [name for name in rows if name in {c.name for c in judgement.criteria}] == [
        criterion.name for criterion in judgement.criteria
    ]
    assert f"p at least {SIGNIFICANCE}" in rows["not worse than production"]
    assert f"at most {TOLERANCE:.1%}".replace("%", " %") in page
    options = [
        line.removeprefix("sknet revalidate").split()
        for line in commands("docs/revalidation.md")
        if line.startswith("sknet revalidate")
    ]
    assert len(options) == 2
    for words in options:
        parse(flows.revalidate.command, words)
    (command,) = (c for c in commands("docs/revalidation.md") if c.startswith("sknet run"))
    given = parse(train_command, shlex.split(command)[2:])
    assert given.recipe in list_recipes()
    floors = settings_of(Floors, given)
    assert floors == Floors(balanced_floor=0.8, class_floor={"cat": 0.9, "dog": 0.95})


def command_lines(page: str) -> list[list[str]]:
    """Return the words after `sknet` of each command in the page's blocks of code.

    Other names of a command count too: `python -m MODULE`, and `sknet/train.py` under msrun.
    """
    found = []
    for block in BLOCK.findall((ROOT / page).read_text("utf-8")):
        for line in block.splitlines():
            for program, rest in re.findall(
                r"(?:^|[ \"/])(sknet|sknet/train\.py|python -m [\w.]+) (?=-{0,2}[a-z])(.*)", line
            ):
                name = OURS.get(program.removeprefix("python -m "), "")
                name = "train" if program == "sknet/train.py" else name
                if program == "sknet" or name:
                    words = re.split(r" [>|&]|\"$", rest)[0]
                    found.append([*name.split(), *shlex.split(words)])
    return found


def text_blocks(page: str) -> list[str]:
    """Return the lines of the page's `text` blocks, which hold what no test runs."""
    text = (ROOT / page).read_text("utf-8")
    blocks = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def anchors(page: Path) -> set[str]:
    """Return the anchors of the page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}
