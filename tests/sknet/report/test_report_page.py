"""The files of a report: equal bytes for equal contents, and pages in which names stay text."""

import base64
import csv
import hashlib
import io
import math
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pandas as pd
import pytest

from sknet.recipe import Recipe
from sknet.report import ReportContents, TrainedRun, write_report
from sknet.report.figures import shortened
from sknet.report.published_table import PUBLISHED_COLUMNS
from sknet.report.results import is_imagenet, results_as_text
from sknet.report.run_figures import learning_curve
from sknet.report.tables import epochs_table
from sknet.report.text import UNKNOWN, beneath_figure
from tests.sknet.report.trained_runs import END, START, epoch_line, make_run, step_line

TABLES = [
    "table",
    "runs",
    "epochs",
    "evaluations",
    "nights",
    "stages",
    "quarantine",
    "data_classes",
    "unreadable",
    "classes",
    "confusion",
    "slices",
]
FILES = [
    "report.html",
    "report.md",
    "accuracy.svg",
    *(f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "parquet")),
]
VOID_TAGS = {"meta", "br", "hr", "img", "link", "input"}
OWN_SCRIPT = resources.files("sknet.report").joinpath("report.js").read_text("utf-8").strip()
EVIL = '<script>alert("x")</script>|`**&'

Attributes = dict[str, str | None]


class Page(HTMLParser):
    """Lists the tags of a page; fails if they are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, Attributes]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[Attributes]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def contents() -> ReportContents:
    other = make_run(
        key="ab" * 32,
        log=[START, step_line(22, math.nan), step_line(44, 1.5), {"type": "start", "step": 44}],
        evaluation=evaluation_with(correct_top1=340),
    )
    return ReportContents(runs=(other, make_run()))


@pytest.fixture(scope="module")
def folder(contents: ReportContents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp("report")
    assert write_report(contents, out_dir) == FILES
    return out_dir


def evaluation_with(**changes: object) -> dict[str, object]:
    evaluation = make_run().evaluation
    assert evaluation is not None
    return evaluation.model_dump() | changes


def evil_run() -> TrainedRun:
    """Return a run with markup wherever it has a name."""
    return make_run(
        recipe=Recipe(name=EVIL, model=EVIL, batch_size=16, epoch_size=6, lr=0.05),
        model=EVIL,
        device_target=EVIL,
        mindspore=EVIL,
        checkpoint_digest=EVIL,
        tasks=[{"task": EVIL, "seconds": 1}],
        evaluation=evaluation_with(split=EVIL),
    )


def read(folder: Path, name: str) -> str:
    return (folder / name).read_text("utf-8")


def script_of(folder: Path) -> str:
    (script,) = re.findall(r"<script>(.*?)</script>", read(folder, "report.html"), re.DOTALL)
    return str(script)


def test_equal_contents_give_equal_bytes_whatever_the_users_style(
    contents: ReportContents, folder: Path, tmp_path: Path
) -> None:
    with matplotlib.rc_context({"font.size": 33, "axes.grid": True, "figure.dpi": 50}):
        write_report(contents, tmp_path / "new" / "folder")
        assert matplotlib.rcParams["font.size"] == 33
    for name in FILES:
        assert (tmp_path / "new" / "folder" / name).read_bytes() == (folder / name).read_bytes()


def test_a_name_in_any_script_is_drawn_by_the_reader_s_browser_without_a_warning(
    tmp_path: Path,
) -> None:
    evaluation = evaluation_with(class_seen=(360, 4), class_correct=(350, 1))
    recipe = Recipe(name="金魚", model="skresnet18", batch_size=1, epoch_size=1, lr=1)
    run = make_run(recipe=recipe, classes=("שלום", "🐟 नमस्ते"), evaluation=evaluation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(ReportContents(runs=(run,)), tmp_path)
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", read(tmp_path, "report.html"))
    assert {"שלום", "🐟 नमस्ते"} <= set(drawn)
    assert any("金魚" in text for text in drawn)
    styles = re.findall(r'<text style="([^"]*)"', read(tmp_path, "report.html"))
    assert styles
    assert not any("family" in style for style in styles)


@pytest.mark.parametrize(
    ("text", "short"),
    [("resnet", "resnet"), ("sk_resnet", "sk_re…"), ("金魚", "金魚"), ("金魚と魚", "金魚…")],
)
def test_a_label_is_cut_where_it_would_be_too_wide(text: str, short: str) -> None:
    assert shortened(text, 6) == short


def test_a_spreadsheet_reads_no_name_as_a_formula(tmp_path: Path) -> None:
    recipe = Recipe(name="=1+1", model="@x", batch_size=1, epoch_size=1, lr=1)
    write_report(ReportContents(runs=(make_run(recipe=recipe, model="@x"),)), tmp_path)
    (row,) = csv.DictReader(io.StringIO(read(tmp_path, "runs.csv")))
    assert (row["recipe"], row["model"]) == ("'=1+1", "'@x")
    assert pd.read_parquet(tmp_path / "runs.parquet")["recipe"].tolist() == ["=1+1"]


def test_unknown_cells_are_empty_in_a_csv_file(folder: Path) -> None:
    rows = list(csv.DictReader(read(folder, "table.csv").splitlines()))
    assert [row["ms/step"] for row in rows[:2]] == ["", "170.25"]


def test_percentages_have_their_counts_beside_them(folder: Path) -> None:
    for name in ("report.html", "report.md"):
        text = read(folder, name)
        assert "97.50 % (351/360)" in text
        assert "99.72 % (359/360)" in text
        assert "94.44 % (340/360)" in text
        assert "95 % interval 95.32 … 98.68 %" in text
    assert "(best of 2 runs, digits, run 0123456789, on test)" in read(folder, "report.md")
    page = read(folder, "report.html")
    assert "351 of 360 samples of test; 95 % interval" in page
    assert page.count('class="hero"') == 1


def imagenet_run(**changes: object) -> TrainedRun:
    """Return a run with ImageNet's numbers of classes and of validation images."""
    left_out = {"split": "val", "key": "val/1.jpg", "reason": "does not decode"}
    data = {
        "source": "imagenet",
        "digest": "1" * 64,
        "shards": "2" * 64,
        "splits": {"train": 1_281_167, "val": 49_999},
        "quarantined": [left_out],
    }
    return make_run(**{"classes": [*map(str, range(1000))], "data": data, **changes})


def test_published_rows_stand_beside_imagenet_runs_only_and_in_a_table_of_their_own(
    folder: Path, tmp_path: Path
) -> None:
    write_report(ReportContents(runs=(imagenet_run(),)), tmp_path)
    for name in ("report.html", "report.md"):
        assert "MindCV, 8x Ascend 910" not in read(folder, name), "these are digits"
        before, heading, after = read(tmp_path, name).partition("Published for ImageNet-1K")
        assert heading
        assert "MindCV, 8x Ascend 910" in after
        assert "MindCV, 8x Ascend 910" not in before
    assert "timm" not in read(folder, "accuracy.svg")
    assert "timm" in read(tmp_path, "accuracy.svg")
    assert is_imagenet(imagenet_run())
    other = imagenet_run().data.model_copy(update={"splits": {"val": 49_000}})  # type: ignore[union-attr]
    assert not is_imagenet(imagenet_run(data=other))


def test_recipe_and_data_name_each_run_before_the_published_columns(folder: Path) -> None:
    shown = results_as_text(ReportContents(runs=(imagenet_run(),)))
    assert [*shown.columns] == [
        *("recipe", "run", "data", "outcome", "accuracy@1, 95 % interval"),
        *(name for name in PUBLISHED_COLUMNS if name not in ("recipe", "weight")),
        *("hardware", "weight"),
    ]
    assert shown.iloc[0][["recipe", "run", "data"]].tolist() == ["digits", "0123456789", "imagenet"]
    assert shown.iloc[0]["hardware"] == "2x CPU"


def test_the_headline_figure_is_the_best_on_the_data_of_the_newest_run() -> None:
    newest, other = imagenet_run(evaluation=evaluation_with(correct_top1=200)), make_run()
    contents = ReportContents(runs=(newest, other))
    assert contents.best == newest, "360 digits are no ImageNet"
    assert beneath_figure(contents).startswith("200 of 360 samples of test of imagenet; 95 %")


def test_a_run_says_what_it_changed_and_a_refused_one_why(tmp_path: Path) -> None:
    slower = make_run().recipe.model_copy(update={"lr": 0.1, "batch_size": 32})
    criterion = {"name": "floor", "passed": False, "detail": "accuracy@1 97.50%, floor 99.00%"}
    promotion = {
        "candidate": "0" * 64,
        "production": None,
        "correct_top1": 351,
        "seen": 360,
        "floor": 0.99,
        "significance": 0.05,
        "comparison": None,
        "criteria": [criterion],
    }
    newest = make_run(key="ab" * 32, recipe=slower, promotion=promotion)
    write_report(ReportContents(runs=(newest, make_run())), tmp_path)
    top = read(tmp_path, "report.html").partition('id="figures"')[0]
    assert "Recipe, changed since digits, run 0123456789:" in top
    changes = re.findall(r"<code>(.*?)</code> <del>(.*?)</del> → <ins>(.*?)</ins>", top)
    assert changes == [("batch_size", "16", "32"), ("lr", "0.05", "0.1")]
    assert '<span class="badge refused">refused</span>' in top
    assert "floor: accuracy@1 97.50%, floor 99.00%</span>" in top


def test_unknown_cells_show_a_dash(folder: Path) -> None:
    assert "<td>–</td>" in read(folder, "report.html")  # noqa: RUF001
    assert "<NA>" not in read(folder, "report.md")
    assert "nan " not in read(folder, "report.md").replace("is nan", "")


def test_the_page_is_balanced_and_its_tables_are_accessible(folder: Path) -> None:
    page = Page(read(folder, "report.html"))
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    assert all(cell.get("scope") in {"col", "row"} for cell in page.all("th"))
    scrolling = [each for each in page.all("div") if "scroll" in str(each.get("class")).split()]
    assert len(scrolling) == len(page.all("table"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))


def test_ids_are_unique_and_references_resolve(folder: Path) -> None:
    text = read(folder, "report.html")
    ids = [attributes["id"] for _, attributes in Page(text).tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 0
    targets = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert targets
    assert targets <= set(ids)


def test_the_page_loads_nothing(folder: Path) -> None:
    text = read(folder, "report.html")
    page = Page(text)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert page.all("script") == [{}]
    loads = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "srcset", "action", "data"}
    ]
    assert all(value is not None and value.startswith("#") for value in loads)
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_only_the_pages_own_script_may_run(folder: Path) -> None:
    (policy,) = re.findall(
        r'Content-Security-Policy" content="([^"]+)"', read(folder, "report.html")
    )
    digest = base64.b64encode(hashlib.sha256(script_of(folder).encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        f"script-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_names_stay_text(tmp_path: Path) -> None:
    write_report(ReportContents(runs=(evil_run(),)), tmp_path)
    page = Page(read(tmp_path, "report.html"))
    assert page.all("script") == [{}]
    assert script_of(tmp_path) == OWN_SCRIPT
    assert "&lt;script&gt;" in read(tmp_path, "report.html")
    markdown, fence, recipe = read(tmp_path, "report.md").partition("```yaml\n")
    assert fence
    assert "\\<script\\>" in markdown
    assert not re.search(r"(?<!\\)<script", markdown)
    assert recipe.count("```") == 1
    # An escaped bar doesn't begin a cell: the rows have 18 cells, as the header has.
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(re.findall(r"(?<!\\)\|", table[0])) == 19
    assert len(re.findall(r"(?<!\\)\|", table[2])) == 19


def test_no_name_can_close_the_markdown_fence(tmp_path: Path) -> None:
    recipe = Recipe(model="a\n```\n# b", batch_size=1, epoch_size=1, lr=1)
    write_report(ReportContents(runs=(make_run(recipe=recipe),)), tmp_path)
    assert "````yaml\n" in read(tmp_path, "report.md")


def test_figures_are_valid_xml_without_metadata() -> None:
    for run in (make_run(), evil_run(), make_run(log=[])):
        svg, words = learning_curve(run)
        root = ElementTree.fromstring(svg)  # noqa: S314 (our own text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("aria-label") == words
        assert words.startswith(f"Learning curve of {run.recipe.name}")
        assert "metadata" not in svg
        assert "#010203" not in svg


def test_a_figure_says_what_it_could_not_draw() -> None:
    log = [START, step_line(22, math.inf), step_line(44, 1.5), epoch_line(0), END]
    words = learning_curve(make_run(log=log)).words
    assert "Losses not drawn because they are not finite: 1." in words
    assert "Validation loss of 0.585 after the last epoch." in words
    svg = learning_curve(make_run()).svg
    assert all(f">{text}</text>" in svg for text in ("training", "validation", "Learning rate"))
    words = learning_curve(make_run(log=[])).words
    assert "No loss was logged. No epoch was evaluated." in words


def test_a_short_training_is_drawn_by_its_epochs_as_few_of_its_steps_are_logged() -> None:
    epochs = [epoch_line(number, train_loss=2.0 - number / 2, lr=0.125) for number in range(3)]
    run = make_run(log=[START, step_line(44, 1.5), *epochs, END])
    assert "Training loss from 2 to 1. " in learning_curve(run).words
    assert epochs_table([run])["lr at the end"].tolist() == [0.125] * 3
    more_steps = make_run(log=[START, *(step_line(step, 1.5) for step in (9, 22, 33, 44)), *epochs])
    assert "Training loss from 1.5 to 1.5. " in learning_curve(more_steps).words


def test_data_sets_of_one_source_are_told_apart_by_their_digests() -> None:
    facts = imagenet_run().data
    assert facts is not None
    other = imagenet_run(key="ab" * 32, data=facts.model_copy(update={"digest": "5" * 64}))
    shown = results_as_text(ReportContents(runs=(other, imagenet_run(), make_run())))
    assert shown["data"].tolist() == [
        *("imagenet, 5555555555", f"imagenet, {facts.digest[:10]}"),
        UNKNOWN,
    ]


def test_a_report_without_runs_says_so(tmp_path: Path) -> None:
    assert write_report(ReportContents(), tmp_path) == FILES
    for name in ("report.html", "report.md"):
        assert "There are no runs yet" in read(tmp_path, name)
        assert "MindCV" not in read(tmp_path, name)
    assert "published: MindCV" in read(tmp_path, "table.csv")
    Page(read(tmp_path, "report.html"))
    assert read(tmp_path, "epochs.csv").startswith("run,epoch,train loss,")


def test_the_report_is_imported_without_plots_and_without_any_framework() -> None:
    program = (
        "import sys, sknet.report; "
        "print({'mindspore', 'prefect', 'infra.artifacts', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
