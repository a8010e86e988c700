"""`python -m infra.doctor`: its checks, output and exit codes."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from infra.base.cann import accepted_versions
from infra.base.commands import app_of, parse, start
from infra.doctor.__main__ import command
from infra.doctor.machine import (
    NAMED,
    Installation,
    Resources,
    check_installation,
    check_resources,
    installation,
)
from infra.doctor.results import CheckResult, Status, as_json, as_table, redacted
from infra.doctor.services import (
    PrefectProbe,
    StoreProbe,
    ask_prefect,
    check_prefect,
    check_store,
)
from tests.infra.ascend_trees import CannTree, sourced

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: object) -> tuple[int, str, str]:
        code = start(app_of(command, "doctor"), [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run_command


@contextmanager
def prefect_answering(clock: float = 0.0, code: int = 200) -> Iterator[str]:
    """Serve the two answers of a Prefect server whose clock is `clock` seconds ahead."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(code)
            self.send_header("Date", formatdate(time.time() + clock, usegmt=True))
            self.end_headers()
            self.wfile.write(b"true" if self.path == "/api/health" else b'"3.8.8"')

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_this_machine_passes_and_the_results_go_to_table_and_json(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with prefect_answering() as api:
        arguments = ("--store", tmp_path / "new", "--api", api, "--json", report, "--disk", 0)
        code, out, err = run(*arguments)
    findings = {each["check"]: each for each in json.loads(report.read_bytes())["findings"]}
    assert (code, err) == (0, "")
    assert {*NAMED, "Python", "cores", "free memory", "free disk", "store"} <= findings.keys()
    assert all(findings[name]["status"] == "ok" for name in (*NAMED, "store", "Prefect API"))
    assert all(name in out for name in findings)
    # The probes left nothing behind, and did not create the store.
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_the_checks_of_ascend_judge_the_cann_of_this_shell(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = accepted_versions() or ()
    tree = CannTree(toolkit=f"{accepted[-1]}.0", compiler=f"{accepted[-1]}.0")
    for name, value in sourced(tree.write(tmp_path / "Ascend")).items():
        monkeypatch.setenv(name, value)
    report = tmp_path / "report.json"
    run("--ascend", "--disk", 0, "--json", report)
    found = {each["check"]: each["status"] for each in json.loads(report.read_bytes())["findings"]}
    of_cann = ("CANN", "CANN's environment", "CANN's libraries", "hccl (CANN)")
    assert [found[name] for name in of_cann] == ["ok"] * 4
    assert {"te (CANN)", "numpy for CANN", "protobuf for CANN"} <= found.keys()
    assert {"npu-smi", "driver", "HCCL's TCP ports", "--bind_core"} <= found.keys()


def test_a_store_that_cannot_be_written_fails(run: Run) -> None:
    code, out, _ = run("--store", "/proc/nowhere", "--disk", 0)
    assert code == 1
    assert "make it writable" in out


def test_a_store_on_s3_is_tried_and_left_as_it_was(run: Run, s3_server: Any) -> None:
    import boto3

    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket="doctor")
    code, out, _ = run("--store", "s3://doctor/prefix", "--disk", 0)
    assert code == 0, out
    assert "store: writers ok the server: If-None-Match and If-Match" in " ".join(out.split())
    assert client.list_objects_v2(Bucket="doctor").get("KeyCount") == 0
    code, out, _ = run("--store", "s3://no-such-bucket/prefix", "--disk", 0)
    assert code == 1
    assert "create the bucket" in " ".join(out.split())


@pytest.mark.parametrize("name", ["B2", "MinIO"])
def test_what_a_server_lacks_is_shown_line_by_line(
    run: Run, s3_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    import boto3

    from tests.s3_imitations import IMITATIONS, PROFILES, imitating

    boto3.session.Session().client("s3").create_bucket(Bucket=f"doctor-{name.lower()}")
    with imitating(IMITATIONS[name], s3_server) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        report = tmp_path / "report.json"
        code, _, _ = run(
            *("--store", f"s3://doctor-{name.lower()}/x", "--disk", 0, "--json", report)
        )
    findings = {each["check"]: each for each in json.loads(report.read_bytes())["findings"]}
    assert code == 0
    for guarantee in PROFILES[name].guarantees:
        shown = findings[f"store: {guarantee.topic}"]
        assert (shown["found"], shown["needed"]) == (guarantee.source, guarantee.promise)
        assert shown["status"] == ("warn" if guarantee.refused else "ok")
        assert guarantee.refused in shown["advice"]
    refused = {topic for topic in findings if findings[topic]["advice"].startswith("refused here")}
    assert refused == {{"B2": "store: writers", "MinIO": "store: large files"}[name]}


def test_a_server_that_has_changed_is_recorded_anew(
    run: Run, s3_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.artifacts.s3_profile import StoreServer
    from infra.s3 import STANDARD, Bucket
    from tests.s3_imitations import PROFILES
    from tests.store_roots import S3Root

    monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "cache"))
    uri = S3Root(tmp_path, profile=PROFILES["Ceph"]).uri
    _, out, _ = run("--store", uri, "--disk", 0)
    assert "its server has changed" in " ".join(out.split())
    assert StoreServer(Bucket(uri), tmp_path / "cache").recorded() == STANDARD
    _, out, _ = run("--store", uri, "--disk", 0)
    assert "its server has changed" not in " ".join(out.split())


def test_wrong_credentials_of_s3_fail_and_are_not_shown(
    run: Run, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONG")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong/secret/wrong")
    code, out, err = run("--store", "s3://doctor/prefix", "--disk", 0)
    assert code == 1
    assert "WRONG" not in out + err
    assert "wrong/" not in out + err


def test_peers_are_addresses_and_may_be_repeated() -> None:
    assert parse(command, ["--peer", "10.0.0.1", "--peer", "fe80::1"]).peer == (
        "10.0.0.1",
        "fe80::1",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--store", "ftp://host/x"], "unknown form"),
        (["--store", "s3://AKIAX:abc/d+f=@bucket/x"], "contains credentials"),
        (["--api", "localhost:4200"], "not the URL of a Prefect API"),
        (["--workers", "0"], "not a whole number from 1 to 1024"),
        (["--disk", "much"], "not a number of at least 0"),
        (["--peer", "10.0.0.1", "--peer", "host-2"], "not an IP address"),
        (["--json", "/proc/nowhere/x.json"], "can't be written"),
        (["--jso", "x"], "no option --jso (did you mean --json?)"),
    ],
)
def test_wrong_input_ends_with_2_and_one_line(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "abc/d" not in err
    assert "Traceback" not in err


def test_credentials_of_an_address_are_not_shown(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, out, err = run("--api", "http://me:pass/word@127.0.0.1:9/api", "--json", report)
    assert code == 1
    assert "word" not in out + err + report.read_text()
    assert "http://***@127.0.0.1:9/api" in report.read_text()


@given(st.from_regex(r"[A-Za-z0-9/+=]{8,40}", fullmatch=True))
def test_secrets_of_the_environment_and_of_urls_are_redacted(secret: str) -> None:
    environment = {"PREFECT_API_KEY": secret}
    assert redacted(f"refused: {secret}.", environment) == "refused: ***."
    shown = redacted(f"s3://KEY:{secret}@bucket/x can't be read", {})
    assert shown == "s3://***@bucket/x can't be read"


def test_control_characters_are_not_printed() -> None:
    result = CheckResult("store", Status.OK, "a\x1b[2Jb\nc")
    assert "\x1b" not in as_table([result])
    assert json.loads(as_json([result]))["findings"][0]["found"] == "a [2Jb c"


@pytest.mark.parametrize(
    ("ahead", "status"), [(0, "ok"), (30, "warn"), (-30, "warn"), (600, "fail"), (-600, "fail")]
)
def test_the_difference_between_clocks_is_measured(ahead: float, status: str) -> None:
    with prefect_answering(ahead) as api:
        _, clock = check_prefect(ask_prefect(api, {}), "3.8.8")
    assert clock.status == status
    if ahead:
        assert float(clock.found.split()[0]) == pytest.approx(abs(ahead), abs=2)
        assert clock.found.endswith("ahead" if ahead > 0 else "behind")


def test_a_server_of_another_version_or_without_an_answer_is_named() -> None:
    with prefect_answering() as api:
        result, _ = check_prefect(ask_prefect(api, {}), "3.9.1")
        assert (result.status, result.needed) == ("warn", "3.9.1, as installed here")
    with prefect_answering(code=401) as api:
        (result,) = check_prefect(ask_prefect(api, {}), "3.8.8")
        assert (result.status, result.found) == ("fail", f"{api}: HTTP 401 Unauthorized")
    (result,) = check_prefect(ask_prefect(api, {}), "3.8.8")
    assert (result.status, result.found) == ("fail", f"{api}: Connection refused")
    (result,) = check_prefect(PrefectProbe(None), "3.8.8")
    assert result.status == "warn"


def test_pins_come_from_the_installed_distribution() -> None:
    facts = installation()
    pins = {each.name: str(each.specifier) for each in facts.requirements}
    assert pins["prefect"] == "==3.8.8"
    assert all(each.status is Status.OK for each in check_installation(facts))
    assert installation("no-such-distribution").requires_python is None


def test_each_wrong_version_fails_by_name() -> None:
    requirements = tuple(map(Requirement, ("numpy>=1.26,<2", "prefect==3.8.8", "pillow>=11")))
    versions = {"numpy": "2.1.0", "pillow": "10.0"}
    facts = Installation("3.13.1", ">=3.11,<3.13", requirements, versions)
    failed = {each.check: each.found for each in check_installation(facts)}
    assert failed == {
        "Python": "3.13.1",
        "numpy": "2.1.0",
        "prefect": "not installed",
        "pillow": "10.0",
    }
    assert {each.status for each in check_installation(facts)} == {Status.FAIL}
    (absent,) = check_installation(Installation("3.11.7", None))
    assert (absent.status, absent.found) == (Status.FAIL, "sknet is not installed")


def test_too_little_disk_fails_and_too_few_cores_or_memory_warn() -> None:
    facts = Resources(cores=2, free_memory=4 * 10**9, disk="/", free_disk=10**9, browser=None)
    results = check_resources(facts, workers=8, disk_gigabytes=2)
    shown = {each.check: str(each.status) for each in results}
    assert shown == {
        "cores": "warn",
        "free memory": "warn",
        "free disk": "fail",
        "Chromium": "warn",
    }


def test_a_check_that_raises_fails_and_the_others_still_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("in a check")

    monkeypatch.setattr("infra.doctor.__main__.check_resources", broken)
    code, out, _ = run()
    assert code == 1
    assert "ZeroDivisionError" in out
    assert "mindspore" in out


def test_trouble_of_a_store_is_one_result() -> None:
    (result,) = check_store(StoreProbe("s3://bucket/x", trouble="no answer within 20 s"))
    assert (result.status, result.found) == ("fail", "no answer within 20 s")
