"""`python -m infra.artifacts`: what is printed, and the exit codes."""

import json
import subprocess
import sys

import pytest
from artifact_examples import commit, make_spec

from infra.artifacts.__main__ import main


@pytest.fixture
def run(store, capsys):
    def run_command(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--store", str(store.root)])
        out, err = capsys.readouterr()
        return code, out, err

    return run_command


def test_ls_prints_a_line_per_artifact(store, run):
    assert run("ls") == (0, "", "")
    artifact = commit(store)
    commit(store, make_spec(kind="index"))
    name = f"shards/{artifact.manifest.key}"
    assert run("ls", "shards") == (0, f"{name}  3  9  -\n", "")
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
    assert (code, out) == (1, f"{name}  manifest  manifest.json  'manifest.json' is missing\n")
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
    assert [line.split()[1] for line in out.splitlines()] == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "absent"], "expected KIND/KEY or the name of a ref"),
        (["show", "shards/" + "0" * 64], "has no artifact"),
        (["show", "../../etc/passwd"], "can be called"),
        (["verify", "shards/0"], "can be called"),
        (["refs", "absent"], "there is no ref"),
        (["refs", "../x"], "no ref can be called"),
    ],
)
def test_wrong_input_is_one_line_and_exits_2(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_store_that_is_not_there_exits_2(tmp_path, capsys):
    assert main(["ls", "--store", str(tmp_path / "absent")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_module_runs(store):
    manifest = commit(store).manifest
    command = [sys.executable, "-m", "infra.artifacts", "ls", "--store", store.root.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"shards/{manifest.key}")
