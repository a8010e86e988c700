"""`python -m infra.artifacts`: what is printed, and the exit codes."""

import json
import os
import subprocess
import sys

import pytest
from artifact_examples import FILES, commit, make_spec, read_files

from infra.artifacts import ArtifactSpec, LocalStore
from infra.artifacts.__main__ import main


@pytest.fixture
def run(store, capsys):
    def run_command(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--store", str(store.root)])
        out, err = capsys.readouterr()
        return code, out, err

    return run_command


def test_ls_prints_a_line_per_artifact(store, run):
    artifact = commit(store)
    commit(store, make_spec(kind="index"))
    name = f"shards/{artifact.manifest.key}"
    code, out, _ = run("ls", "shards")
    heading, rule, row = out.splitlines()
    assert (code, heading.split()) == (0, ["artifact", "files", "bytes", "created"])
    assert row.split() == [name, "3", "9", "-"]
    assert row.index("3  ") == heading.index("files")  # aligned
    assert set(rule) == {"-", " "}
    code, out, _ = run("ls", "--json")
    assert (code, len(json.loads(out))) == (0, 2)
    assert json.loads(out)[1] == {"artifact": name, "files": 3, "bytes": 9, "created": None}


def test_show_prints_an_artifact_by_name_or_ref(store, run):
    manifest = commit(store).manifest
    store.refs.set("production", manifest, expected=None, reason="first")
    by_name = run("show", f"shards/{manifest.key}")
    assert by_name[0] == 0
    assert f"digest: {manifest.digest}\n" in by_name[1]
    assert "params.seed: 0\n" in by_name[1]
    assert run("show", "production") == by_name
    assert json.loads(run("show", "production", "--json")[1]) == json.loads(manifest.encode())


def test_a_directory_without_artifacts_is_no_store_without_damage(store, run):
    """An unmounted file system is an empty directory."""
    said = f"'{store.root}' holds no artifacts: check --store, and that its file system is mounted"
    assert run("verify") == (2, "", f"error: {said}\n")
    for command in ("ls", "gc", "repair"):
        code, _, err = run(command)
        assert (code, err.splitlines()[-1]) == (0, said)
    commit(store)
    assert run("verify")[0] == 0


def test_verify_finds_damage_and_exits_1(store, run):
    sound = commit(store, make_spec(seed=1)).manifest
    artifact = commit(store)
    assert run("verify") == (0, "", "2 artifacts verified, 0 damages\n")
    artifact.path("index.json").write_bytes(b"{}")
    name = f"shards/{artifact.manifest.key}"
    assert [run("verify", "--level", level)[0] for level in ("size", "changed")] == [0, 1]
    assert run("verify", f"shards/{sound.key}")[0] == 0
    code, out, _ = run("verify", "--json")
    (damage,) = json.loads(out)
    assert (code, damage["artifact"], damage["problem"], damage["path"]) == (
        1,
        name,
        "sha256",
        "index.json",
    )
    (artifact.directory / "manifest.json").unlink()
    code, out, _ = run("verify", name)
    assert code == 1
    assert out.splitlines()[2].split() == [
        name, "manifest", "manifest.json", "'manifest.json'", "is", "missing",
    ]  # fmt: skip
    assert artifact.directory.exists()
    code, out, err = run("show", name)
    assert (code, out) == (1, "")
    assert err.startswith("damaged: ")


def test_refs_prints_where_each_points_and_the_history_of_one(store, run):
    one, other = (commit(store, make_spec(seed)).manifest for seed in range(2))
    first = store.refs.set("production", one, expected=None, reason="first")
    store.refs.set("production", other, expected=first, reason="better")
    (row,) = json.loads(run("refs", "--json")[1])
    assert (row["ref"], row["version"], row["artifact"], row["reason"]) == (
        "production",
        2,
        f"shards/{other.key}",
        "better",
    )
    code, out, _ = run("refs", "production")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["1", "2"]
    second = store.refs.get("production")
    store.refs.set("production", second, expected=second, reason="checked", suspect="a bit flipped")
    _, out, _ = run("refs", "production")
    assert [line.split()[-1] for line in out.splitlines()[2:]] == ["-", "-", "flipped"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "absent"], "expected KIND/KEY or the name of a ref"),
        (["show", "shards/" + "0" * 64], "has no artifact"),
        (["show", "../../etc/passwd"], "can be called"),
        (["verify", "shards/0"], "can be called"),
        (["refs", "absent"], "there is no ref"),
        (["refs", "../x"], "no ref can be called"),
        (["refs", "rollback", "absent"], "there is no ref"),
        (["refs", "a", "b", "c"], "expected NAME, rollback NAME or set NAME KIND/KEY"),
        (["refs", "set", "production", "shards/" + "0" * 64], "can't be set without --reason"),
        (["refs", "set", "production", "absent", "--reason", "x"], "expected KIND/KEY"),
        (["refs", "set", "best", "shards/" + "0" * 64, "--reason", "x"], "has no artifact"),
        (
            ["refs", "set", "production", "shards/" + "0" * 64, "--reason", "x"],
            "ref 'production' points to artifacts of kind 'checkpoint' only, not to 'shards'",
        ),
        (["fetch", "absent", "--out", "x"], "expected KIND/KEY"),
        (["push", "absent", "--to", "x"], "expected KIND/KEY"),
    ],
)
def test_wrong_input_is_refused_in_one_line_with_exit_code_2(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.fixture
def lineage(store):
    """Shards, and an index made from them, to which a ref points."""
    made_from_nothing = ArtifactSpec(kind="shards", format_version=1, params={}, inputs={})
    shards = commit(store, made_from_nothing).manifest
    spec = ArtifactSpec(kind="index", format_version=1, params={}, inputs={"shards": shards.digest})
    index = commit(store, spec, {"index.json": b"[1]"}).manifest
    store.refs.set("production", index, expected=None, reason="first")
    return shards, index


def test_fetch_copies_the_files_verified_into_a_new_directory(store, run, lineage, tmp_path):
    shards, _ = lineage
    code, out, _ = run("fetch", f"shards/{shards.key}", "--out", str(tmp_path / "a/b"), "--json")
    assert (code, [row["path"] for row in json.loads(out)]) == (0, sorted(FILES))
    for name, content in FILES.items():
        assert (tmp_path / "a/b" / name).read_bytes() == content
    code, out, err = run("fetch", "production", "--out", str(tmp_path / "a/b"))
    assert (code, out) == (2, "")
    assert "not empty" in err
    (tmp_path / "empty").mkdir()
    assert run("fetch", "production", "--out", str(tmp_path / "empty"))[0] == 0


def test_fetch_leaves_nothing_of_a_damaged_artifact(store, run, tmp_path):
    artifact = commit(store)
    artifact.path("shards/1.bin").write_bytes(b"two")
    out = tmp_path / "out"
    code, message, err = run("fetch", f"shards/{artifact.manifest.key}", "--out", str(out))
    assert (code, message, err.count("\n")) == (1, "", 1)
    assert "'shards/1.bin'" in err
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_push_copies_an_artifact_with_what_it_was_made_from(store, run, lineage, tmp_path):
    shards, index = lineage
    other = tmp_path / "other"
    code, out, _ = run("push", "production", "--to", str(other), "--json")
    assert (code, [row["status"] for row in json.loads(out)]) == (0, ["pushed"])
    code, out, _ = run("push", "production", "--to", str(other), "--with-inputs", "--json")
    assert [(row["artifact"], row["status"]) for row in json.loads(out)] == [
        (f"shards/{shards.key}", "pushed"),
        (f"index/{index.key}", "was there"),
    ]
    there = LocalStore(other)
    assert list(there.list()) == [index, shards]
    assert read_files(there.get(shards.spec, level="full")) == FILES
    assert store.verify("index", index.key) == ()
    assert list(there.root.glob(".work/*/*")) == []


def test_push_brings_the_refs_that_point_to_what_it_pushes_with_their_history(
    store, run, lineage, tmp_path
):
    shards, index = lineage
    store.refs.set("data", shards, expected=None, reason="of production")
    first = store.refs.get("production")
    store.refs.set("production", index, expected=first, reason="checked", suspect="a bit flipped")
    other = LocalStore(tmp_path / "other")
    push = ("push", "production", "--to", str(other.root))
    code, _, err = run(*push)
    assert (code, err) == (0, "refs/production: pushed\n")
    assert other.refs.history("production") == store.refs.history("production")
    assert other.refs.names() == ("production",)
    assert run(*push, "--with-inputs")[2] == "refs/data: pushed\nrefs/production: was there\n"


def test_push_moves_a_ref_only_forward(store, run, lineage, tmp_path):
    shards, index = lineage
    other = LocalStore(tmp_path / "other")
    push = ("push", "production", "--to", str(other.root))
    run(*push, "--with-inputs")
    current = store.refs.get("production")
    there = other.refs.set("production", shards, expected=current, reason="moved there")
    assert run(*push)[::2] == (0, "refs/production: is newer there\n")
    assert other.refs.get("production") == there
    store.refs.set("production", index, expected=current, reason="moved here")
    code, _, err = run(*push)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("refs/production: not moved: ref 'production' is at version 2")
    assert other.refs.get("production") == there


def test_a_replica_keeps_what_its_refs_protect_however_old_it_is(store, run, lineage, tmp_path):
    _, index = lineage
    commit(store, make_spec(9), {"other": b"1"})
    replica = tmp_path / "replica"
    run("push", "production", "--with-inputs", "--to", str(replica))
    run("push", f"shards/{make_spec(9).key}", "--to", str(replica))
    for path in replica.glob("*/*"):
        os.utime(path, (0, 0))
    assert main(["gc", "--delete", "--store", str(replica)]) == 0
    assert {manifest.key for manifest in LocalStore(replica).list()} == {
        index.key,
        lineage[0].key,
    }


def test_a_store_without_refs_is_collected_only_on_request(store, run):
    old = commit(store)
    os.utime(old.directory, (0, 0))
    code, _, err = run("gc")
    assert (code, "--without-refs removes all the same" in err) == (0, True)
    code, _, err = run("gc", "--delete")
    assert (code, "nothing is removed: the store has no refs" in err) == (2, True)
    assert old.directory.is_dir()
    assert run("gc", "--delete", "--without-refs")[2] == "1 of 1 removed, 9 bytes\n"
    assert not old.directory.exists()


def test_push_refuses_another_digest_and_a_missing_input(store, run, lineage, tmp_path):
    shards, _ = lineage
    other = LocalStore(tmp_path / "other")
    commit(other, shards.spec, {"index.json": b"other"})
    code, _, err = run("push", f"shards/{shards.key}", "--to", str(other.root))
    assert (code, err.count("\n")) == (1, 1)
    assert "3 files differ" in err
    store.remove("shards", shards.key)
    code, _, err = run("push", "production", "--with-inputs", "--to", str(other.root))
    assert (code, err.count("\n")) == (2, 1)
    assert "not in the store" in err


def test_gc_shows_what_would_go_and_why_the_rest_stays_and_deletes_on_request(store, run, lineage):
    old = commit(store, make_spec(7), {"other": b"123456789"}).manifest
    arguments = ("gc", "--days", "0", "--json")
    code, out, err = run(*arguments)
    fates = {row["what"]: (row["fate"], row["why"]) for row in json.loads(out)}
    shards, index = lineage
    assert code == 0
    assert fates[f"index/{index.key}"] == ("stays", "refs/production version 1")
    assert fates[f"shards/{shards.key}"] == ("stays", f"input of index/{index.key[:12]}")
    assert fates[f"shards/{old.key}"][0] == "would go"
    assert err == "1 of 3 would go, 9 bytes; --delete removes it\n"
    assert len(list(store.list())) == 3
    assert run("gc")[2] == "0 of 3 would go, 0 bytes\n"
    assert run(*arguments, "--delete")[2] == "1 of 3 removed, 9 bytes\n"
    assert list(store.list()) == [index, shards]


def test_refs_rollback_goes_back_by_a_new_entry(store, run, lineage):
    shards, index = lineage
    assert run("refs", "rollback", "production")[0] == 2
    current = store.refs.get("production")
    store.refs.set("production", shards, expected=current, reason="better")
    code, out, _ = run("refs", "rollback", "production", "--json")
    (row,) = json.loads(out)
    assert (code, row["version"], row["artifact"]) == (0, 3, f"index/{index.key}")
    assert row["reason"] == "rolled back from version 2 to version 1"
    assert [entry.key for entry in store.refs.history("production")] == [
        index.key, shards.key, index.key,
    ]  # fmt: skip


def test_rollback_skips_entries_that_only_mark_and_keeps_the_mark_of_its_target(
    store, run, lineage
):
    shards, index = lineage
    current = store.refs.get("production")
    for target, reason, suspect in (
        (current, "checked", "one bit is wrong"),
        (shards, "better", None),
        (shards, "checked", "two bits are wrong"),
    ):
        current = store.refs.set(
            "production", target, expected=current, reason=reason, suspect=suspect
        )
    code, out, _ = run("refs", "rollback", "production", "--json")
    (row,) = json.loads(out)
    assert (code, row["artifact"]) == (0, f"index/{index.key}")
    assert row["reason"] == "rolled back from version 4 to version 2"
    assert row["suspect"] == "one bit is wrong"


def test_rollback_to_a_damaged_artifact_is_refused(store, run, lineage):
    shards, index = lineage
    current = store.refs.get("production")
    moved = store.refs.set("production", shards, expected=current, reason="better")
    (store.root / "index" / index.key / "index.json").write_bytes(b"[2]")
    code, out, err = run("refs", "rollback", "production")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "sha256" in err
    assert store.refs.get("production") == moved


@pytest.fixture
def rivals(store):
    """Two checkpoints, to the first of which production points."""
    one, other = (commit(store, make_spec(n, kind="checkpoint")).manifest for n in range(2))
    store.refs.set("production", one, expected=None, reason="first")
    return one, other


def test_refs_set_points_a_ref_to_an_undamaged_artifact_with_a_reason(store, run, rivals):
    one, other = rivals
    to_other = ("refs", "set", "production", f"checkpoint/{other.key}", "--reason", "by hand")
    code, out, _ = run(*to_other, "--json")
    (row,) = json.loads(out)
    assert (code, row["version"], row["reason"], row["suspect"]) == (0, 2, "by hand", None)
    assert [ref.key for ref in store.refs.history("production")] == [one.key, other.key]
    code, out, _ = run("refs", "set", "best", "production", "--reason", "as production", "--json")
    assert (code, json.loads(out)[0]["artifact"]) == (0, f"checkpoint/{other.key}")

    moved = store.refs.get("production")
    (store.root / "checkpoint" / one.key / "index.json").write_bytes(b"{}")
    code, out, err = run("refs", "set", "production", f"checkpoint/{one.key}", "--reason", "back")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "sha256" in err
    assert store.refs.get("production") == moved


@pytest.mark.parametrize("name", ["production", "best"])
def test_a_ref_keeps_its_kind(store, run, rivals, name):
    one, _ = rivals
    store.refs.set("best", one, expected=None, reason="first")
    shards = commit(store).manifest
    code, out, err = run("refs", "set", name, f"shards/{shards.key}", "--reason", "by mistake")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"ref {name!r} points to artifacts of kind 'checkpoint' only" in err
    assert len(store.refs.history(name)) == 1


def test_refs_set_fails_if_another_moved_the_ref_meanwhile(store, run, rivals, monkeypatch):
    one, other = rivals
    load = LocalStore.load

    def slowly(self, kind, key, *, level="size"):
        loaded = load(self, kind, key, level=level)
        current = store.refs.get("production")
        store.refs.set("production", other, expected=current, reason="meanwhile")
        return loaded

    monkeypatch.setattr(LocalStore, "load", slowly)
    code, out, err = run("refs", "set", "production", f"checkpoint/{one.key}", "--reason", "late")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "read it again before you move it" in err
    assert store.refs.get("production").reason == "meanwhile"


def test_repair_sets_aside_what_is_damaged_and_clears_dead_commits(store, run, lineage):
    shards, index = lineage
    (store.root / "index" / index.key / "index.json").write_bytes(b"[2]")
    (store.root / ".staging" / "dead").mkdir()
    code, out, _ = run("repair", "--json")
    damaged, dead = json.loads(out)
    assert (code, damaged["what"], dead["what"]) == (0, f"index/{index.key}", ".staging/dead")
    assert "sha256" in damaged["problem"]
    assert "builds it again; refs/production points to it" in damaged["done"]
    assert list(store.list()) == [shards]
    assert run("repair", "--json")[1] == "[]\n"
    assert run("verify")[0] == 0


def test_a_store_that_is_not_there_exits_2(tmp_path, capsys):
    assert main(["ls", "--store", str(tmp_path / "absent")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_module_runs(store):
    manifest = commit(store).manifest
    command = [sys.executable, "-m", "infra.artifacts", "ls", "--store", store.root.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"\nshards/{manifest.key}" in done.stdout
