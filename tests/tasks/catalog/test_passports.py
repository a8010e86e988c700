"""A passport says what the records say, and verification refuses whatever differs from it."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from flows import passport
from infra.artifacts import ArtifactSpec, LocalStore, Manifest, open_store
from infra.base.commands import start
from sknet.passport.chain import CARD_FILE, CHAIN_FILE, CROISSANT_FILE
from sknet.passport.fields import CARD_TEMPLATE, CardFields, DataFields
from sknet.passport.signing import new_key
from sknet.records import Evaluation
from tasks.catalog.passports import CARD_SETTING, KEY_SETTING
from tests.candidates import flip_a_bit
from tests.documented import ROOT, commands
from tests.passports import key_pair, promoted_store


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStore, Path]:
    """A promoted store, and a directory with a pair of keys and a card."""
    directory = tmp_path_factory.mktemp("passport")
    key_pair(directory)
    (directory / "card.yaml").write_text(CARD_TEMPLATE, "utf-8")
    return promoted_store(directory / "store"), directory


@pytest.fixture
def made(
    prepared: tuple[LocalStore, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[LocalStore, Path, Path]:
    """The store with a signed passport, the keys' directory, and a copy of the passport."""
    store, directory = prepared
    out = tmp_path / "copy"
    words = ["make", "--key", directory / "key.pem", "--card", directory / "card.yaml"]
    assert run(store, *words, "--out", out) == 0
    capsys.readouterr()
    return store, directory, out


def run(store: LocalStore, *words: object) -> int:
    return offline(*words, "--store", store.root)


def offline(*words: object) -> int:
    return start(passport.app, [*map(str, words)])


def other_images(root: Path) -> Path:
    """Write class folders of four images."""
    for number, name in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (60 * number, 90, 200)).save(root / name / "0.png")
    return root


def only(store: LocalStore, kind: str) -> Manifest:
    (manifest,) = store.list(kind)
    return manifest


def test_the_model_card_has_the_figures_of_the_records_and_the_fields_of_the_card(
    made: tuple[LocalStore, Path, Path],
) -> None:
    store, _, out = made
    text = (out / CARD_FILE).read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    fields = yaml.safe_load(front)
    counts = Evaluation.read(
        store.load("evaluation", only(store, "evaluation").key).path("evaluation.json")
    )
    assert fields["license"] == "apache-2.0"
    (result,) = fields["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(counts.accuracy_top1, abs=1e-6)
    low, high = counts.interval_top1
    assert f"{counts.accuracy_top1:.2%} ({low:.2%} to {high:.2%})" in body
    assert f"calibration error is {counts.calibration_error:.4f}" in body
    assert "on the other 180, it changes the error from 0.1250 to 0.0625" in body.lower()
    assert "For 1%: unsure below a calibrated probability of 0.9000: of 180 held-out" in body
    assert "What the model is made for." in body
    assert "*Not told" not in body
    assert "accuracy@1 | passed" in " ".join(body.split())
    assert only(store, "checkpoint").digest in body


def test_a_card_says_which_fields_nobody_filled(
    prepared: tuple[LocalStore, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store, _ = prepared
    assert run(store, "make", "--out", tmp_path / "copy") == 0
    said = capsys.readouterr().out
    assert "not signed: set SKNET_SIGNING_KEY" in said
    assert "not told  license, intended_use, data.license" in said
    text = (tmp_path / "copy" / CARD_FILE).read_text("utf-8")
    assert "*Not told: fill in `license` of the card.*" in text
    assert not (tmp_path / "copy" / CHAIN_FILE).exists()


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning:(rdflib|mlcroissant)")
def test_croissant_s_own_reader_accepts_the_metadata_and_reads_all_samples(
    made: tuple[LocalStore, Path, Path],
) -> None:
    import mlcroissant

    _, _, out = made
    dataset = mlcroissant.Dataset(jsonld=str(out / CROISSANT_FILE))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    # Fields that the card's template leaves to people.
    assert all("is recommended" in str(each) for each in issues.warnings)
    samples = list(dataset.records("samples"))
    assert len(samples) == 1797
    assert {record["classes/title"] for record in dataset.records("classes")} == set("0123456789")
    assert {sample["samples/split"] for sample in samples} == {b"train", b"val"}


def test_a_passport_is_made_once_and_verified(
    made: tuple[LocalStore, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, keys, out = made
    assert run(store, "make", "--key", keys / "key.pem", "--card", keys / "card.yaml") == 0
    assert capsys.readouterr().out.startswith("reused")
    public = keys / "key.pem.pub"
    assert run(store, "verify", "--key", public, "--data", "digits") == 0
    said = capsys.readouterr().out
    for kind in ("dataset", "shards", "checkpoint", "evaluation", "promotion"):
        assert f"verified  {kind}/{only(store, kind).key}" in said
    assert "verified  the images in digits" in said
    weights = store.load("checkpoint", only(store, "checkpoint").key).path("model.ckpt")
    copies = ["verify", "--key", public, "--passport", out, "--checkpoint", weights]
    assert offline(*copies) == 0
    assert offline(*copies[:-2]) == 2
    capsys.readouterr()
    for ignored in (["--ref", "production"], ["--store", store.root]):
        assert offline(*copies, *ignored) == 2
        assert "leave out --store and --ref" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dataset", "shards", "checkpoint", "evaluation", "passport"])
def test_a_flipped_bit_of_anything_signed_is_refused(
    kind: str,
    made: tuple[LocalStore, Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, keys, _ = made
    signed = [each for each in store.list(kind) if each.params.get("key", "") is not None]
    artifact = store.root / kind / signed[0].key
    path = artifact / signed[0].files[0].path
    content = path.read_bytes()
    try:
        flip_a_bit(path)
        assert run(store, "verify", "--key", keys / "key.pem.pub") == 1
    finally:
        path.write_bytes(content)
    assert capsys.readouterr().err.startswith("REFUSED: ")
    assert run(store, "verify", "--key", keys / "key.pem.pub") == 0


def test_copies_of_other_files_and_other_images_are_refused(
    made: tuple[LocalStore, Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, keys, out = made
    public = keys / "key.pem.pub"
    weights = tmp_path / "model.ckpt"
    weights.write_bytes(b"other weights")
    copies = ["verify", "--key", public, "--passport", out, "--checkpoint"]
    assert offline(*copies, weights) == 1
    assert "model.ckpt has SHA-256" in capsys.readouterr().err
    assert offline(*copies, out / CARD_FILE) == 2
    assert "is no file of a checkpoint" in capsys.readouterr().err
    assert run(store, "verify", "--key", public, "--data", other_images(tmp_path / "images")) == 1
    assert "are not those that were signed" in capsys.readouterr().err
    (out / CARD_FILE).write_text("It is perfect.", "utf-8")
    good = store.load("checkpoint", only(store, "checkpoint").key).directory
    assert offline(*copies, good) == 1
    assert CARD_FILE in capsys.readouterr().err


def test_images_that_cannot_be_opened_are_refused_before_anything_is_verified(
    made: tuple[LocalStore, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, keys, _ = made
    verify = ["verify", "--key", keys / "key.pem.pub", "--data", tmp_path / "nowhere"]
    assert run(store, *verify) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "nowhere" in said.err


def test_a_directory_that_takes_no_copy_is_refused_before_a_passport_is_made(
    prepared: tuple[LocalStore, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, keys = prepared
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    card = tmp_path / "card.yaml"
    card.write_text("name: another passport than the other tests make", "utf-8")
    before = [each.key for each in store.list("passport")]
    make = ["make", "--card", card, "--key", keys / "key.pem", "--out"]
    assert run(store, *make, tmp_path / "full") == 2
    assert "is not empty" in capsys.readouterr().err
    assert run(store, *make, "/proc/nowhere") == 2
    assert "/proc/nowhere can't be made" in capsys.readouterr().err
    assert [each.key for each in store.list("passport")] == before


def test_a_checkpoint_that_names_no_shards_is_refused_in_one_line(
    prepared: tuple[LocalStore, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As another program may have stored it."""
    store = LocalStore(tmp_path / "store")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "model.ckpt").write_bytes(b"weights")
    spec = ArtifactSpec(kind="checkpoint", format_version=1, params={}, inputs={})
    store.put(spec, tmp_path / "files", stats={}, provenance={})
    assert run(store, "make", "--ref", f"checkpoint/{spec.key}") == 2
    said = capsys.readouterr().err
    assert f"error: checkpoint/{spec.key} does not say its shards" in said
    assert said.count("\n") == 1


def test_a_checkpoint_without_a_passport_of_the_key_is_refused(
    made: tuple[LocalStore, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, _, _ = made
    other = new_key(tmp_path / "other.pem")
    assert run(store, "verify", "--key", other) == 2
    assert "has no passport that key" in capsys.readouterr().err


def test_production_that_was_replaced_by_another_checkpoint_is_refused(
    made: tuple[LocalStore, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, keys, _ = made
    replaced = json.loads((store.root / "refs" / "production.json").read_text("utf-8"))
    assert replaced["digest"] == only(store, "checkpoint").digest
    shards = only(store, "shards")
    current = store.refs.get("production")
    store.refs.set("production", shards, expected=current, reason="by mistake")
    try:
        assert run(store, "verify", "--key", keys / "key.pem.pub") == 2
        assert "a passport is of a checkpoint" in capsys.readouterr().err
    finally:
        now = store.refs.get("production")
        store.refs.set("production", only(store, "checkpoint"), expected=now, reason="back")


def test_the_form_of_a_card_has_every_field() -> None:
    form = yaml.safe_load(CARD_TEMPLATE)
    assert form.keys() == CardFields.model_fields.keys()
    assert form["data"].keys() == DataFields.model_fields.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "licence: MIT",
            "has a field 'licence' that there isn't: expected name, description, license",
        ),
        ("data: {licence: MIT}", "has a field 'data.licence' that there isn't: expected name, "),
        ("license: [MIT]", "license is ['MIT']"),
        ("data: {url: 'javascript:alert(1)'}", "data.url is"),
        ("name: [", "is not valid YAML"),
    ],
)
def test_a_card_with_a_mistake_is_refused_in_one_line(
    text: str,
    message: str,
    prepared: tuple[LocalStore, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, _ = prepared
    card = tmp_path / "card.yaml"
    card.write_text(text, "utf-8")
    assert run(store, "make", "--card", card) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_commands_of_the_page_do_what_it_says(
    prepared: tuple[LocalStore, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, directory = prepared
    checkpoint = store.load("checkpoint", only(store, "checkpoint").key).directory
    values = {
        "artifacts": store.root,
        "card.yaml": directory / "card.yaml",
        "signing-key.pem": tmp_path / "signing-key.pem",
        "signing-key.pem.pub": tmp_path / "signing-key.pem.pub",
        "passport": tmp_path / "passport",
        "checkpoint": checkpoint,
    }
    page = commands("docs/passport.md")
    found = [
        shlex.split(each.partition(" > ")[0])[2:]
        for each in page
        if each.startswith("sknet passport ")
    ]
    assert [words[0] for words in found] == ["card", "new-key", "make", "verify", "verify"]
    for words in found:
        assert start(passport.app, [str(values.get(word, word)) for word in words]) == 0
    assert capsys.readouterr().out.count("verified  checkpoint/") == 2
    text = (ROOT / "docs" / "passport.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in (CARD_SETTING, KEY_SETTING, CARD_FILE, CHAIN_FILE))


def test_a_copy_of_a_store_without_the_data_verifies_what_it_has(
    made: tuple[LocalStore, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, keys, _ = made
    other = open_store(str(shutil.copytree(store.root, tmp_path / "elsewhere")))
    assert isinstance(other, LocalStore)
    for kind in ("dataset", "shards"):
        other.remove(kind, only(store, kind).key)
    verify = ["verify", "--key", keys / "key.pem.pub", "--data", "digits"]
    assert run(other, *verify) == 0
    said = capsys.readouterr().out
    assert f"signed; not in this store dataset/{only(store, 'dataset').key}" in said
    assert f"verified  checkpoint/{only(store, 'checkpoint').key}" in said
    assert "verified  the images in digits" in said
    other.remove("checkpoint", only(store, "checkpoint").key)
    assert run(other, *verify) == 1
    assert "is signed and can't be found" in capsys.readouterr().err


def test_a_store_that_is_copied_to_another_place_verifies_there(
    made: tuple[LocalStore, Path, Path], tmp_path: Path
) -> None:
    store, keys, _ = made
    copy = shutil.copytree(store.root, tmp_path / "elsewhere")
    other = open_store(str(copy))
    assert isinstance(other, LocalStore)
    assert run(other, "verify", "--key", keys / "key.pem.pub") == 0
