"""Production moves to a candidate that passes every criterion; a refusal shows all criteria."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect import flow

from flows.summary import summary
from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    LocalStore,
    Manifest,
    Ref,
    RefConflictError,
    open_store,
)
from infra.artifacts.__main__ import main as artifacts_command
from infra.artifacts.refs import Refs
from sknet.data.conversion.conversion import write_shards
from sknet.data.sources import open_source
from sknet.data.staging import stage_source
from sknet.errors import UserError
from sknet.judgement import NO_FLOORS, Floors
from sknet.passport.signing import PublicKey
from sknet.recipe import load_recipe
from sknet.records import Check, CheckpointChecks, Promotion, Shards
from tasks.catalog.passports import signed_passport, verify_in_store
from tasks.catalog.production import MAX_CONFLICTS, sealed_split
from tasks.promote import promote
from tasks.results import TaskResult
from tests.candidates import put_changed, remove_all, result_of, with_note, with_wrong
from tests.passports import key_pair
from tests.tiny_pipeline import Trained, shown_by

pytestmark = pytest.mark.slow

NUM_SAMPLES = 18


@flow(name="only-promote")
def only_promote(
    recipe: str,
    floor: float,
    checkpoint: TaskResult,
    evaluation: TaskResult,
    store: str,
    floors: Floors = NO_FLOORS,
) -> TaskResult:
    choices = load_recipe(recipe, [f"min_accuracy={floor}"])
    return promote(choices, checkpoint, evaluation, store, floors).result()


class Case:
    """A store whose production predicts every sample correctly, and candidates for it."""

    def __init__(self, trained: Trained, store: Path) -> None:
        self.trained = trained
        self.store = open_store(str(store))
        self.uri = str(store)
        remove_all(self.store, "promotion")
        recorded = self.store.load("evaluation", trained.of("validate").key)
        put_changed(self.store, recorded, with_wrong(), params={"numpy": "as production"})
        self.store.remove("evaluation", recorded.manifest.key)
        (self.evaluation,) = (
            self.store.load("evaluation", manifest.key)
            for manifest in self.store.list("evaluation")
        )

    @property
    def production(self) -> Ref:
        ref = self.store.refs.get("production")
        assert ref is not None
        return ref

    def candidate(
        self, name: str, change: Callable[[Path], None], *, shards: Artifact | None = None
    ) -> tuple[TaskResult, TaskResult]:
        """Return the results of training and evaluating another checkpoint."""
        checkpoint = put_changed(
            self.store,
            self.store.load("checkpoint", self.trained.of("train").key),
            with_note(name),
            params={"world_size": 1000 + len(name)},
        )
        inputs = {"checkpoint": checkpoint.digest}
        if shards:
            inputs["shards"] = shards.digest
        evaluation = put_changed(self.store, self.evaluation, change, inputs=inputs)
        return result_of(checkpoint, "train"), result_of(evaluation, "validate")

    def promote(
        self,
        candidate: tuple[TaskResult, TaskResult],
        floor: float = 0.5,
        floors: Floors = NO_FLOORS,
    ) -> TaskResult:
        return only_promote(str(self.trained.recipe), floor, *candidate, self.uri, floors)

    def promotions(self) -> list[tuple[Manifest, Promotion]]:
        return [
            (
                manifest,
                Promotion.read(self.store.load("promotion", manifest.key).path("promotion.json")),
            )
            for manifest in self.store.list("promotion")
        ]


@pytest.fixture
def case(trained: Trained, copied_store: Path) -> Case:
    return Case(trained, copied_store)


def failed(result: TaskResult) -> list[str]:
    criteria = result.facts.get("criteria", [])
    assert isinstance(criteria, list)
    return [str(row["name"]) for row in criteria if isinstance(row, dict) and not row["passed"]]


def test_the_first_promotion_is_recorded_with_what_it_was_judged_by(trained: Trained) -> None:
    store = open_store(str(trained.store))
    (manifest,) = store.list("promotion")
    record = Promotion.read(store.load("promotion", manifest.key).path("promotion.json"))
    assert record.granted
    assert (record.candidate, record.production) == (trained.of("train").digest, None)
    assert record.comparison is None
    assert manifest.inputs == {"candidate": trained.of("validate").digest}
    assert manifest.params["evaluation"] == trained.of("validate").key
    assert [check.name for check in record.criteria] == [
        *("the checkpoint is sound", "accuracy@1", "balanced accuracy")
    ]
    assert record.warnings[0].startswith("no floor is set")


def test_the_checkpoint_in_production_is_reused_and_not_judged_again(case: Case) -> None:
    before = case.production
    candidate = case.trained.of("train"), result_of(case.evaluation, "validate")
    found = case.promote(candidate)
    assert (found.status, found.facts["judged"]) == ("reused", "in production already")
    assert found.facts["earlier"] is None
    assert case.production == before
    assert case.promotions() == []


def test_what_was_in_production_before_is_known_for_the_comparison(case: Case) -> None:
    first = case.production
    candidate = case.candidate("good", with_wrong(0))
    assert case.promote(candidate).facts["earlier"] == first.key
    assert case.promote(candidate).facts["earlier"] == first.key
    refused = case.promote(case.candidate("bad", with_wrong(*range(9))))
    assert refused.facts["earlier"] == candidate[0].key


def test_a_candidate_that_is_not_significantly_worse_replaces_production(case: Case) -> None:
    before = case.production
    checkpoint, evaluation = case.candidate("good", with_wrong(0, 1, 2, 3))

    result = case.promote((checkpoint, evaluation))

    assert result.status == "built"
    assert case.production.digest == checkpoint.digest
    judged = "floor 50.00%, p 0.0625 against production"
    reason = f"accuracy@1 77.78% (14/18), {judged}"
    assert (case.production.reason, result.facts["reason"]) == (reason, reason)
    assert (result.facts["judged"], result.facts["earlier"]) == (judged, before.key)
    ((manifest, record),) = case.promotions()
    assert record.granted
    assert (record.candidate, record.production) == (checkpoint.digest, before.digest)
    assert record.comparison is not None
    assert record.comparison.model_dump() == {
        "both_correct": 14,
        "only_production": 4,
        "only_candidate": 0,
        "neither": 0,
        "p_value": pytest.approx(1 / 16),
    }
    assert manifest.inputs == {"candidate": evaluation.digest, "production": case.evaluation.digest}


def test_what_is_promoted_has_a_signed_passport_and_a_wrong_key_leaves_production_as_it_was(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = case.production
    candidate = case.candidate("good", with_wrong(0, 1, 2, 3))
    monkeypatch.setenv("SKNET_SIGNING_KEY", str(tmp_path / "none.pem"))
    with pytest.raises(UserError, match=r"none\.pem can't be read"):
        case.promote(candidate)
    assert case.production == before
    private, public = key_pair(tmp_path)
    monkeypatch.setenv("SKNET_SIGNING_KEY", str(private))

    result = case.promote(candidate)

    key = PublicKey.read(public)
    passport = signed_passport(case.store, case.production, key)
    signed_by = f"passport/{passport.manifest.key}, signed by {key.id[:10]}"
    assert result.facts["passport"] == signed_by
    found, _ = verify_in_store(case.store, case.production, passport, key)
    assert set(found.values()) == {"verified"}
    assert f"checkpoint/{case.production.key}" in found
    assert case.promote(candidate).facts["passport"] == signed_by
    results = [result if each.task == "promote" else each for each in case.trained.results]
    assert f"passport    {signed_by}" in summary(results)


def test_production_stays_if_what_its_passport_would_tell_of_is_gone(case: Case) -> None:
    candidate = case.candidate("good", with_wrong(0, 1, 2, 3))
    assert case.promote(candidate).status == "built"
    before = case.production
    remove_all(case.store, "dataset")
    again = case.promote(candidate)
    assert (again.status, case.production) == ("reused", before)
    (warning,) = again.facts["warnings"]  # type: ignore[misc]
    assert str(warning).startswith("production stays, but no passport can be made: ")


def test_a_significantly_worse_candidate_is_refused_with_every_criterion(case: Case) -> None:
    before = case.production
    checkpoint, evaluation = case.candidate("worse", with_wrong(0, 1, 2, 3, 4))

    state = only_promote(
        str(case.trained.recipe), 0.5, checkpoint, evaluation, case.uri, return_state=True
    )

    result = state.result()
    assert (result.status, failed(result)) == ("refused", ["not worse than production"])
    assert case.production == before
    results = [result if each.task == "promote" else each for each in case.trained.results]
    lines = summary(results)
    (line,) = [line for line in lines if line.startswith("promoted")]
    assert line.startswith("promoted    NOT promoted: floor 50.00%, p 0.0312 against production")
    assert line.endswith("; failed: not worse than production")
    table = lines[lines.index(line) + 2 :][:9]
    assert table[0].split() == ["name", "passed", "found", "expected"]
    assert [row.split("  ")[0] for row in table[2:]] == [
        "the checkpoint is sound",
        "accuracy@1",
        "balanced accuracy",
        "classes",
        "not worse than production",
        "no class worse than production",
        "not taken back",
    ]
    shown = shown_by(state.state_details.flow_run_id)["promotion"]
    rows = json.loads(str(shown.data))
    assert (shown.type, len(rows)) == ("table", 7)
    assert rows[4]["found"].startswith("p 0.03125: 5 samples right by production only, 0 by")
    ((_, record),) = case.promotions()
    assert not record.granted
    passed = [check.passed for check in record.criteria]
    assert passed == [True, True, True, True, False, True, True]


def test_below_the_floor_nothing_is_promoted(case: Case) -> None:
    before = case.production
    refused = case.promote(case.candidate("low", with_wrong(0)), floor=0.95)
    assert (refused.status, failed(refused)) == ("refused", ["accuracy@1"])
    assert case.production == before

    Path(case.uri, "refs", "production.json").unlink()
    refused = case.promote(case.candidate("low", with_wrong(0)), floor=0.95)
    assert (refused.status, failed(refused)) == ("refused", ["accuracy@1"])
    assert case.store.refs.get("production") is None


def test_floors_of_classes_and_of_balanced_accuracy_are_judged_and_recorded(case: Case) -> None:
    """Sample 0 is one of the six blue ones, sample 1 one of the green ones."""
    floors = Floors(balanced_floor=0.95, class_floor={"blue": 0.5, "red": 1.0})
    refused = case.promote(case.candidate("a blue one wrong", with_wrong(0, 1)), floors=floors)
    assert (refused.status, failed(refused)) == ("refused", ["balanced accuracy"])
    ((manifest, record),) = case.promotions()
    assert (record.balanced_floor, record.class_floors) == (0.95, floors.class_floor)
    assert [check.name for check in record.criteria][2:5] == [
        *("balanced accuracy", "recall of blue", "recall of red")
    ]
    assert record.criteria[3].detail.startswith("83.33% (5/6), 95 % interval ")
    assert any("floor of recall of red: of 6 samples" in each for each in record.warnings)
    assert manifest.params["record"] == record.content_digest
    warned = [f"warning     {each}" for each in record.warnings]
    results = [refused if each.task == "promote" else each for each in case.trained.results]
    assert [line for line in summary(results) if line.startswith("warning")] == warned


def test_production_that_is_below_a_new_floor_is_said_and_stays(case: Case) -> None:
    candidate = case.candidate("blue wrong", with_wrong(0))
    assert case.promote(candidate).status == "built"
    again = case.promote(candidate, floors=Floors(class_floor={"blue": 0.9, "red": 0.9}))
    assert again.status == "reused"
    (warning,) = again.facts["warnings"]  # type: ignore[misc]
    assert str(warning).startswith(
        "production stays, but it is below a floor: recall of blue: 83.33% (5/6), "
    )


def with_test_split(case: Case, root: Path) -> Artifact:
    """Return shards of the same images, and of two images of each class in a sealed test split."""
    images = root / "images"
    shutil.copytree(case.trained.images, images)
    for folder in (images / "val").iterdir():
        (images / "test" / folder.name).mkdir(parents=True)
        for name in ("00.png", "01.png"):
            pixels = np.asarray(Image.open(folder / name)).copy()
            pixels[0, 0] ^= 1  # no copy
            Image.fromarray(pixels).save(images / "test" / folder.name / name)
    staged = stage_source(open_source(str(images)))
    (root / "dataset").mkdir()
    staged.write(root / "dataset")
    (root / "shards").mkdir()
    write_shards(staged, str(images), root / "shards", num_shards=1, num_workers=1)
    dataset = case.store.put(
        ArtifactSpec(kind="dataset", format_version=2, params={}, inputs={}),
        root / "dataset",
        stats={},
        provenance={},
    )
    return case.store.put(
        ArtifactSpec(
            kind="shards", format_version=2, params={}, inputs={"dataset": dataset.digest}
        ),
        root / "shards",
        stats={},
        provenance={},
    )


def test_a_promoted_checkpoint_alone_is_evaluated_once_on_the_sealed_test_split(
    case: Case, tmp_path: Path
) -> None:
    shards = with_test_split(case, tmp_path)
    Path(case.uri, "refs", "production.json").unlink()
    low = case.candidate("low", with_wrong(0), shards=shards)
    assert case.promote(low, floor=0.99).status == "refused"
    assert list(case.store.list("test-evaluation")) == []

    earlier = sealed_split(case.store, "0" * 64, shards, "CPU")
    assert earlier is not None
    (tmp_path / "earlier").mkdir()
    with_note("an earlier look")(tmp_path / "earlier")
    case.store.put(earlier.spec, tmp_path / "earlier", stats={}, provenance={})
    granted = case.promote(low)

    assert granted.status == "built"
    ((_, record),) = [each for each in case.promotions() if each[1].granted]
    assert record.sealed is not None
    assert (record.sealed.looks, record.sealed.evaluation.split) == (2, "test")
    assert record.sealed.evaluation.class_seen == (2, 2, 2)
    (evaluation,) = (
        each
        for each in case.store.list("test-evaluation")
        if each.inputs["checkpoint"] == low[0].digest
    )
    assert [file.path for file in evaluation.files] == ["evaluation.json"]
    assert str(granted.facts["sealed"]).endswith("; looked at 2 times so far")
    results = [granted if each.task == "promote" else each for each in case.trained.results]
    assert f"test split  {granted.facts['sealed']}" in summary(results)

    assert case.promote(low).status == "reused"
    assert len(list(case.store.list("test-evaluation"))) == 2


def test_a_checkpoint_that_failed_a_check_is_refused(case: Case) -> None:
    def with_failed_check(directory: Path) -> None:
        for path in directory.iterdir():
            path.unlink()
        check = Check(name="finite", passed=False, detail="fc.weight has values that are not")
        CheckpointChecks(checks=(check,)).write(directory / "checks.json")

    before = case.production
    refused = case.promote(case.candidate("unsound", with_failed_check))
    assert refused.status == "refused"
    assert failed(refused) == [
        *("the checkpoint is sound", "accuracy@1", "balanced accuracy"),
        *("not worse than production", "no class worse than production"),
    ]
    assert str(refused.facts["reason"]).startswith("not evaluated, ")
    assert case.production == before


def test_other_classes_are_refused_and_the_shown_command_promotes_by_hand(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    def with_another_class(directory: Path) -> None:
        shards = Shards.read(directory / "shards.json")
        dataset = shards.dataset.model_copy(update={"classes": ("blue", "green", "pink")})
        shards.model_copy(update={"dataset": dataset}).write(directory / "shards.json")

    shards = put_changed(
        case.store,
        case.store.load("shards", case.trained.of("convert").key),
        with_another_class,
        params={"num_shards": 1000},
    )
    checkpoint, evaluation = case.candidate("pink", with_wrong(), shards=shards)

    refused = case.promote((checkpoint, evaluation))

    assert failed(refused) == [
        *("classes", "not worse than production", "no class worse than production")
    ]
    criteria = refused.facts["criteria"]
    assert isinstance(criteria, list)
    expected = str(criteria[3]["expected"])  # type: ignore[index,call-overload]
    command = expected.partition("by hand: ")[2]
    words = command.removeprefix("sknet store ").replace("…", "agreed").split()
    assert artifacts_command([*words, "--store", case.uri]) == 0
    assert case.production.digest == checkpoint.digest
    assert case.production.reason == "agreed"
    capsys.readouterr()


def test_production_is_evaluated_on_the_candidates_shards_if_it_never_was(case: Case) -> None:
    def of_another_plan(directory: Path) -> None:
        shards = Shards.read(directory / "shards.json")
        shards.model_copy(update={"plan": "0" * 64}).write(directory / "shards.json")

    shards = put_changed(
        case.store,
        case.store.load("shards", case.trained.of("convert").key),
        of_another_plan,
        params={"num_shards": 1000},
    )
    checkpoint, evaluation = case.candidate("elsewhere", with_wrong(), shards=shards)
    before = case.production

    assert case.promote((checkpoint, evaluation)).status == "built"

    (comparison,) = case.store.list("comparison")
    assert comparison.inputs == {"checkpoint": before.digest, "shards": shards.digest}
    ((manifest, record),) = case.promotions()
    assert manifest.inputs["production"] == comparison.digest
    assert record.comparison is not None
    correct = int(str(case.trained.of("validate").facts["correct_top1"]))
    assert record.comparison.both_correct == correct
    assert record.comparison.only_candidate == NUM_SAMPLES - correct


def test_a_suspect_production_is_compared_by_its_recorded_predictions(
    case: Case,
) -> None:
    current = case.production
    case.store.refs.set(
        "production",
        current,
        expected=current,
        reason="revalidation",
        suspect="regressed: 2 differ",
    )
    assert case.promote(case.candidate("next", with_wrong())).status == "built"
    assert case.production.suspect is None
    ((_, record),) = case.promotions()
    assert "production is suspect (regressed: 2 differ)" in record.criteria[4].detail


def test_a_checkpoint_that_was_rolled_back_is_not_promoted_again(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = case.candidate("bad", with_wrong())
    former = case.production.digest
    assert case.promote(candidate).status == "built"
    assert artifacts_command(["refs", "rollback", "production", "--store", case.uri]) == 0
    assert case.production.digest == former
    capsys.readouterr()

    again = case.promote(candidate)

    assert (again.status, failed(again)) == ("refused", ["not taken back"])
    assert case.production.digest == former


class Rivals:
    """Other processes, each of which moves production just before this one does."""

    def __init__(self, moves: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
        self.moves = moves
        self._set = Refs.set
        rivals = self

        def set_late(refs: Refs, *args: object, **kwargs: object) -> Ref:
            if rivals.moves:
                target = rivals.moves.pop(0)
                current = refs.get("production")
                rivals._set(refs, "production", target, expected=current, reason="a rival's")
            return rivals._set(refs, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(Refs, "set", set_late)


def test_a_candidate_is_judged_again_if_another_was_promoted_meanwhile(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival, _ = case.candidate("rival", with_wrong(0))
    assert isinstance(case.store, LocalStore)
    before = case.production.digest
    Rivals([case.store.load("checkpoint", rival.key).manifest], monkeypatch)
    checkpoint, evaluation = case.candidate("mine", with_wrong(0, 1))

    assert case.promote((checkpoint, evaluation)).status == "built"

    assert [ref.digest for ref in case.store.refs.history("production")] == [
        before, rival.digest, checkpoint.digest,
    ]  # fmt: skip
    judged = {record.production: record for _, record in case.promotions()}
    assert judged.keys() == {before, rival.digest}
    won = judged[rival.digest].comparison
    assert won is not None
    assert (won.only_production, won.both_correct, won.neither) == (1, 16, 1)


def test_after_several_conflicts_the_promotion_fails_in_one_line(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival, _ = case.candidate("rival", with_wrong(0))
    other, _ = case.candidate("other one", with_wrong(0))
    manifests = [case.store.load("checkpoint", each.key).manifest for each in (rival, other)]
    Rivals(manifests * MAX_CONFLICTS, monkeypatch)
    mine = case.candidate("mine", with_wrong(0, 1))
    with pytest.raises(RefConflictError, match=f"moved {MAX_CONFLICTS} times while .* was judged"):
        case.promote(mine)
    assert case.production.digest in (rival.digest, other.digest)
