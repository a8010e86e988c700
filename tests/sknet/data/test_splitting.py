"""Own splits: stratified, reproducible, and no copy and no group on both sides."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from logging import INFO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sknet.data import splitting
from sknet.data.sources import Sample, open_source
from sknet.data.sources.source import SplitRule
from sknet.data.splitting import draw_splits, uneven_splits
from sknet.data.staging import Staged
from tests.refusals import refusal
from tests.sknet.conversions import convert, stage

CLASSES = ("cat", "dog", "emu")


def make_samples(*counts: int) -> list[Sample]:
    """Return training samples of as many classes as there are counts."""
    return [
        Sample("train", key := f"{label}/{number:03}.png", label, 1, "", key, 0)
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def keys_by_split(
    samples: Sequence[Sample],
    *,
    copies: Sequence[Sequence[str]] = (),
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
    **fractions: float,
) -> dict[str, set[str]]:
    names = [str(label) for label in range(1 + max(sample.label for sample in samples))]
    rule = SplitRule(fractions, seed)
    drawn = draw_splits(samples, names, rule, copies=copies, groups=groups)
    assert sorted(sample.key for sample in drawn) == sorted(sample.key for sample in samples)
    assert all(a.split < b.split or a.key < b.key for a, b in pairwise(drawn))
    result: dict[str, set[str]] = {}
    for sample in drawn:
        result.setdefault(sample.split, set()).add(sample.key)
    return result


def test_without_groups_the_first_of_each_class_by_a_seeded_hash_of_their_names_are_held_out() -> (
    None
):
    samples = make_samples(40, 7, 2)

    def first(label: int, count: int) -> list[str]:
        keys = [sample.key for sample in samples if sample.label == label]
        return sorted(keys, key=lambda key: hashlib.sha256(f"3/{key}".encode()).digest())[:count]

    drawn = keys_by_split(samples, val=0.25, seed=3)
    assert drawn["val"] == {*first(0, 10), *first(1, 2), *first(2, 1)}


def test_copies_and_groups_are_on_one_side_and_each_class_keeps_its_fraction() -> None:
    draw = random.Random(11)
    distances = []
    for _ in range(30):
        samples = make_samples(*(draw.randrange(40, 90) for _ in range(4)))
        keys = [sample.key for sample in samples]
        copies = [draw.sample(keys, draw.randrange(2, 4)) for _ in range(8)]
        # Patients have images of all classes, and some images are of nobody.
        groups = {key: draw.choice(["", f"patient {draw.randrange(60)}"]) for key in keys}
        drawn = keys_by_split(samples, val=0.2, test=0.1, copies=copies, groups=groups)
        split_of = {key: split for split, keys in drawn.items() for key in keys}
        for same in copies:
            assert len({split_of[key] for key in same}) == 1
        by_group: dict[str, set[str]] = {}
        for key, group in groups.items():
            if group:
                by_group.setdefault(group, set()).add(split_of[key])
        assert all(len(splits) == 1 for splits in by_group.values())
        of_class = Counter((split_of[sample.key], sample.label) for sample in samples)
        for label in range(4):
            count = sum(sample.label == label for sample in samples)
            for split, fraction in (("val", 0.2), ("test", 0.1)):
                distances.append(abs(of_class[split, label] - fraction * count))
    # The largest groups, which copies join, have 15 images.
    assert max(distances) < 6
    assert sum(distances) < 0.7 * len(distances)


def test_an_image_under_two_labels_is_on_one_side() -> None:
    samples = make_samples(10, 10)
    copies = [[f"0/{n:03}.png", f"1/{n:03}.png"] for n in range(10)]
    drawn = keys_by_split(samples, val=0.3, copies=copies)
    numbers = {side: {key[2:] for key in drawn[side]} for side in ("train", "val")}
    assert (len(numbers["train"]), len(numbers["val"])) == (7, 3)


def test_large_groups_are_held_out_where_a_class_has_no_others() -> None:
    samples = make_samples(60, 60)
    groups = {sample.key: f"camera {int(sample.key[2:5]) // 20}" for sample in samples}
    drawn = keys_by_split(samples, val=0.1, groups=groups)
    assert Counter(key[0] for key in drawn["val"]) == {"0": 20, "1": 20}


def test_changing_one_fraction_leaves_the_other_split_as_it_was() -> None:
    samples = make_samples(50, 30)
    both = keys_by_split(samples, val=0.2, test=0.2)
    assert keys_by_split(samples, val=0.4, test=0.2)["test"] == both["test"]
    assert keys_by_split(samples, val=0.2, test=0.3)["val"] == both["val"]
    assert keys_by_split(samples, val=0.2)["val"] == both["val"]
    assert keys_by_split(samples, test=0.2)["test"] == both["test"]


def test_images_keep_their_split_when_others_are_added() -> None:
    groups = {s.key: f"patient {int(s.key[2:5]) % 12}" for s in make_samples(120, 120)}
    before = keys_by_split(make_samples(60, 60), val=0.25, groups=groups)
    after = keys_by_split(make_samples(120, 120), val=0.25, groups=groups)
    assert before["val"] < after["val"]
    assert before["train"] < after["train"]
    alone = keys_by_split(make_samples(40), val=0.25)["val"]
    assert len(alone - keys_by_split(make_samples(44), val=0.25)["val"]) <= 1


def test_splits_that_the_source_has_are_left_alone_and_their_groups_stay_in_train() -> None:
    given = [Sample("val", f"v/{n}.png", 0, 1, "", "", 0) for n in range(3)]
    copies = [["v/0.png", f"0/{n:03}.png"] for n in range(9)]
    drawn = keys_by_split([*make_samples(20), *given], test=0.5, copies=copies)
    assert drawn["val"] == {"v/0.png", "v/1.png", "v/2.png"}
    assert not {key for _, key in copies} & drawn["test"]
    assert len(drawn["test"]) == 10


@pytest.mark.parametrize("fractions", [{"val": 0.1}, {"val": 0.1, "test": 0.1}])
def test_class_that_cannot_be_in_each_split_is_named(fractions: dict[str, float]) -> None:
    samples = make_samples(10, 10)
    copies = [[f"1/{n:03}.png", f"1/{n + 1:03}.png"] for n in range(8)]  # the last is alone
    if len(fractions) == 1:
        copies.append(["1/008.png", "1/009.png"])
    message = refusal(lambda: keys_by_split(samples, copies=copies, **fractions))
    splits = ", ".join(("train", *fractions))
    assert message.startswith(
        f"class '1' can't be in each of {splits}: its 10 training images form"
    )


def test_images_that_only_look_alike_are_divided_if_a_class_would_have_too_few_groups() -> None:
    samples = [replace(sample, sha256=sample.key) for sample in make_samples(10, 10)]
    samples[1] = replace(samples[1], sha256=samples[0].sha256)
    alike = [[sample.key for sample in samples if sample.label == label] for label in (0, 1)]
    other = alike[1][:3]
    drawn = keys_by_split(samples, val=0.3, copies=[alike[0], other])
    assert Counter(key[0] for key in drawn["val"]) == {"0": 3, "1": 3}
    # Equal bytes stay together, and so do near copies in classes that have other groups.
    for keys in (["0/000.png", "0/001.png"], other):
        assert len({key in drawn["val"] for key in keys}) == 1


def test_of_classes_that_share_their_near_copies_no_more_are_divided_than_need_be() -> None:
    samples = [replace(sample, sha256=sample.key) for sample in make_samples(10, 10)]
    pair = ["1/008.png", "1/009.png"]
    shared = [sample.key for sample in samples if sample.key not in pair]
    for seed in range(10):
        drawn = keys_by_split(samples, val=0.2, test=0.2, copies=[shared, pair], seed=seed)
        assert [pair[0] in keys for keys in drawn.values()] == [
            pair[1] in keys for keys in drawn.values()
        ]


def test_many_classes_whose_images_look_alike_are_divided_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_groupings = 0

    def counted(*arguments: Any) -> Any:
        nonlocal num_groupings
        num_groupings += 1
        return group(*arguments)

    group = splitting._groups
    monkeypatch.setattr(splitting, "_groups", counted)
    samples = [replace(sample, sha256=sample.key) for sample in make_samples(*[5] * 30)]
    alike = [[f"{label}/{number:03}.png" for number in range(5)] for label in range(30)]
    drawn = keys_by_split(samples, val=0.2, copies=alike)
    assert len(drawn["val"]) == 30
    assert num_groupings == 3  # as found, with the first class divided, with all of them divided


@pytest.fixture(scope="module")
def unsplit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of classes alone, with ten images each; don't change them."""
    return write_folders(tmp_path_factory.mktemp("data") / "unsplit")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of `unsplit` that a test may change."""
    return write_folders(tmp_path / "own")


def write_folders(root: Path, count: int = 10) -> Path:
    pixels = random.Random(5)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for index in range(count):
            image = Image.frombytes("RGB", (32, 32), pixels.randbytes(3072))
            image.save(root / name / f"{index}.png")
    return root


def staged_keys(staged: Staged, split: str) -> set[str]:
    index = staged.index
    return set(index["key"][index["split"] == split])


def test_folders_without_a_split_hold_out_a_tenth_of_each_class(unsplit: Path) -> None:
    told: list[str] = []
    staged = stage(unsplit, report=lambda _, line: told.append(line))
    assert "stage: split val: 3 images, drawn from train" in told
    assert staged.dataset.splits == {"train": 27, "val": 3}
    assert {key.split("/")[0] for key in staged_keys(staged, "val")} == {*CLASSES}
    assert stage(unsplit).dataset == staged.dataset


def test_users_choose_the_fractions_and_the_seed(unsplit: Path) -> None:
    chosen = {
        query: staged_keys(stage(f"{unsplit}?{query}"), "val")
        for query in ("val=0.3", "val=0.3&seed=0", "val=0.3&seed=1", "val=0.3&test=0.2")
    }
    assert [len(keys) for keys in chosen.values()] == [9, 9, 9, 9]
    assert chosen["val=0.3"] == chosen["val=0.3&seed=0"] == chosen["val=0.3&test=0.2"]
    assert chosen["val=0.3"] != chosen["val=0.3&seed=1"]
    staged = stage(f"{unsplit}?test=0.2")
    assert staged.dataset.splits == {"train": 21, "val": 3, "test": 6}


def test_equal_files_are_held_out_together(own: Path) -> None:
    for name in CLASSES:
        for index in range(0, 10, 2):
            (own / name / f"{index}.png").write_bytes(
                (own / name / f"{index + 1}.png").read_bytes()
            )
    held_out = staged_keys(stage(f"{own}?val=0.4"), "val")
    assert len(held_out) == 12
    pairs = {(key.split("/")[0], int(Path(key).stem) // 2) for key in held_out}
    assert len(pairs) == 6


@pytest.mark.parametrize(
    "query",
    [
        *("val=0", "val=1", "val=x", "val=nan", "val=-0.1", "val=", "val", "test=inf"),
        *("seed=a", "size=3", "val=0.5&test=0.5"),
    ],
)
def test_bad_split_rule_is_refused(unsplit: Path, query: str) -> None:
    assert f"data source '{unsplit}?{query}'" in refusal(lambda: open_source(f"{unsplit}?{query}"))


@pytest.mark.parametrize("query", ["val=0.2", "test=0.2&val=0.1"])
def test_split_that_the_source_has_is_not_drawn(folders: Path, query: str) -> None:
    message = refusal(lambda: open_source(f"{folders}?{query}"))
    assert message == (
        f"data source '{folders}?{query}' has a split 'val' of its own: leave ?val= out"
    )


def test_class_of_too_few_images_is_refused_before_any_is_read(own: Path) -> None:
    for index in range(2, 10):
        (own / f"dog/{index}.png").unlink()
    stage(own)
    message = refusal(lambda: list(open_source(f"{own}?test=0.1").files()))
    assert message == (
        f"class 'dog' has 2 images in {own}/dog: expected at least one for each of train, val, test"
    )


def test_existing_directory_with_a_query_in_its_name_is_used_as_it_is(
    own: Path, tmp_path: Path
) -> None:
    odd = own.rename(tmp_path / "what?val=0.5")
    assert stage(odd).dataset.splits == {"train": 27, "val": 3}


def test_folders_train_and_test_hold_out_validation_images_of_train(own: Path) -> None:
    (own.parent / "split").mkdir()
    root = own.parent / "split"
    own.rename(root / "train")
    write_folders(root / "test", count=2)
    message = refusal(lambda: open_source(str(root)))
    assert "has no folder 'val': expected train/<class>/<images>" in message
    assert message.endswith(f"or {root}?val=0.1 to hold out a tenth of train")
    staged = stage(f"{root}?val=0.2")
    assert staged.dataset.splits == {"train": 24, "val": 6, "test": 6}
    assert {key.split("/")[0] for key in staged_keys(staged, "val")} == {"train"}


def test_any_source_may_have_a_sealed_split_drawn_from_its_training_images() -> None:
    staged = stage("digits?test=0.05&seed=1")
    assert staged.dataset.splits == {"train": 1367, "val": 360, "test": 70}
    assert staged.dataset.samples_digest != stage("digits?test=0.05&seed=2").dataset.samples_digest


def test_drawn_splits_are_converted(unsplit: Path, tmp_path: Path) -> None:
    shards = convert(Path(f"{unsplit}?val=0.2&test=0.2"), tmp_path / "out", num_shards=1)
    assert {file.split: file.num_samples for file in shards.files} == {
        "train": 18,
        "val": 6,
        "test": 6,
    }


def write_groups(root: Path, text: str) -> None:
    (root / "groups.csv").write_bytes(text.encode("utf-8"))


def lines(root: Path, group: Callable[[str, int], str]) -> str:
    return "".join(
        f"{name}/{index}.png,{group(name, index)}\n" for name in CLASSES for index in range(10)
    )


def test_images_of_one_group_of_groups_csv_are_held_out_together(own: Path) -> None:
    write_groups(own, "\ufeffpath,group\r\n" + lines(own, lambda _, index: f"p{index % 5}"))
    held_out = staged_keys(stage(f"{own}?val=0.2"), "val")
    assert len(held_out) == 6
    assert len({int(Path(key).stem) % 5 for key in held_out}) == 1


def test_group_file_may_have_other_columns_empty_groups_and_lines_of_no_image(own: Path) -> None:
    rows = lines(own, lambda *_: '"",x').replace("\n", "\r\n")
    write_groups(own, f"path,group,camera\n\n./{rows}gone/1.png,g,y\ncat\\1.png,,x\n")
    with_groups = stage(f"{own}?val=0.3").dataset
    (own / "groups.csv").unlink()
    assert with_groups == stage(f"{own}?val=0.3").dataset


def test_class_far_from_its_fraction_is_told() -> None:
    rule = SplitRule({"val": 0.1})
    samples = make_samples(60, 60)
    groups = {s.key: f"camera {int(s.key[2:5]) // 20}" for s in samples if s.label == 0}
    groups |= {sample.key: "" for sample in samples if sample.label == 1}
    drawn = draw_splits(samples, CLASSES[:2], rule, groups=groups)
    assert uneven_splits(drawn, CLASSES[:2], rule) == [
        "val has 20 of the 60 images of 'cat' instead of 6, as copies and groups are not divided"
    ]


def test_groups_in_several_given_splits_are_told_or_refused(images_copy: Path) -> None:
    keys = [path.relative_to(images_copy).as_posix() for path in images_copy.glob("*/*/*")]
    # Patient 0 is in both splits, the others in one each.
    lines = (f"{key},patient {0 if '000' in key else key}" for key in keys)
    write_groups(images_copy, "path,group\n" + "\n".join(lines))
    told: list[str] = []
    stage(images_copy, report=lambda level, line: told.append(line) if level > INFO else None)
    line = (
        "groups of groups.csv in several splits: 1, such as 'patient 0', which is in train and val"
    )
    assert told == [f"stage: {line}"]
    message = refusal(lambda: stage(images_copy, on_leak="refuse"))
    assert message == f"{line}: put each into one split, or choose --on-leak warn"


def test_group_file_names_each_image_of_given_splits_except_sealed_ones(images_copy: Path) -> None:
    keys = sorted(path.relative_to(images_copy).as_posix() for path in images_copy.glob("*/*/*"))
    write_groups(images_copy, "path,group\n" + "".join(f"/data/{key},p\n" for key in keys))
    message = refusal(lambda: stage(images_copy))
    assert message == (
        f"groups.csv has no line for 21 of 21 images, such as {keys[0]}: expected path and group "
        "of each, or an empty group for an image of its own"
    )
    write_groups(images_copy, "path,group\n" + "".join(f"{key},\n" for key in keys[:-1]))
    assert f"for 1 of 21 images, such as {keys[-1]}: " in refusal(lambda: stage(images_copy))
    write_groups(images_copy, "path,group\n" + "".join(f"{key},\n" for key in keys))
    write_folders(images_copy / "test", count=1)
    told: list[str] = []
    stage(images_copy, report=lambda level, line: told.append(line) if level > INFO else None)
    assert told == [
        "stage: groups.csv has no line for 3 of 3 images of test, such as test/cat/0.png: whether "
        "their groups are in other splits, too, is not known"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1 is '': expected the columns path,group"),
        ("path;group\na;b\n", "line 1 is 'path;group': expected the columns path,group"),
        ("path,group\ncat/1.png\n", "line 2: 1 values, expected 2"),
        ("path,group\ncat/1.png,a\ncat/1.png,b\n", "line 3: cat/1.png has the groups 'a' and 'b'"),
        ('path,group\ncat/1.png,"a\n', "line 2: unexpected end of data"),
        ("path,group\ncat/1.png,\udcff\n", " is not UTF-8"),
        (
            "path,group\ncat/1.png,a\n",
            "groups.csv has no line for 29 of 30 images, such as cat/0.png",
        ),
    ],
)
def test_bad_group_file_is_refused(own: Path, text: str, expected: str) -> None:
    (own / "groups.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert expected in refusal(lambda: stage(own))
