"""Jobs end with the right outcome, and leave no rank behind."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from infra.base.cann import accepted_versions
from infra.base.ranges import show_ranges
from infra.launch import Job, JobResult, Outcome, run
from infra.launch.binding import binding_obstacle
from tests.infra.ascend_trees import CannTree
from tests.infra.launch.launch_jobs import (
    MINDSPORE_RANK,
    RANK,
    RANK_WITH_SCHEDULER,
    Alive,
    Interruption,
    MakeJob,
    caller_of,
)
from tests.waiting import wait_for


def run_collecting(job: Job) -> tuple[JobResult, list[str]]:
    lines: list[str] = []
    return run(job, on_line=lines.append), lines


# One rank, started without msrun


def test_single_rank_done(make_job: MakeJob) -> None:
    job = make_job("""
        assert "MS_ROLE" not in os.environ
        print("first")
        sys.stdout.buffer.write(b"bad byte \\xff\\r\\nunfinished")
        report("done", "1 step")
    """)
    result, lines = run_collecting(job)
    assert (result.status, result.message, result.return_code) == (Outcome.DONE, "1 step", 0)
    assert lines == ["[rank 0] first", "[rank 0] bad byte \ufffd", "[rank 0] unfinished"]
    assert result.log_tail == tuple(lines)
    assert (job.log_dir / "worker_0.log").read_bytes().endswith(b"unfinished")


@pytest.mark.parametrize("status", ["user_error", "non_finite", "stopped", "failed"])
def test_reported_outcome_is_returned(make_job: MakeJob, status: str) -> None:
    result = run(make_job(f"report({status!r}, 'why')\nsys.exit(1)"), on_line=print)
    assert (result.status, result.message, result.return_code) == (status, "why", 1)


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "Path(sys.argv[1]).write_text('{')",
        "report('lost_worker')",
        "Path(sys.argv[1]).write_text(json.dumps({'status': 'done'}))",
    ],
)
def test_exit_code_0_without_a_valid_outcome_is_not_trusted(make_job: MakeJob, body: str) -> None:
    job = make_job(body)
    job.outcome_file.write_text('{"status": "done", "message": "from an earlier attempt"}')
    result = run(job, on_line=print)
    assert (result.status, result.return_code) == (Outcome.LOST_WORKER, 0)
    assert "exit code 0, and there is no valid outcome" in result.message


def test_done_with_another_exit_code_is_not_trusted(make_job: MakeJob) -> None:
    result = run(make_job("report('done')\nsys.exit(5)"), on_line=print)
    assert (result.status, result.return_code) == (Outcome.LOST_WORKER, 5)
    assert "exit code 5, and rank 0 reported done" in result.message


def test_silent_job_is_ended_as_hung(make_job: MakeJob, alive: Alive) -> None:
    # Longer than a busy machine takes to start the rank.
    job = make_job("print('last line')\ntime.sleep(6000)", silence=4)
    result = run(job, on_line=print)
    assert (result.status, result.return_code) == (Outcome.LOST_WORKER, 143)
    assert "ended as hung" in result.message
    assert "last line" in result.message
    assert alive() == set()


def test_job_past_its_deadline_has_failed(make_job: MakeJob, alive: Alive) -> None:
    result = run(make_job("time.sleep(6000)", deadline=0.5), on_line=print)
    assert (result.status, result.return_code) == (Outcome.FAILED, 124)
    assert result.message == "not done within 0.5 s"
    assert alive() == set()


def test_exception_in_the_caller_ends_the_job(make_job: MakeJob, alive: Alive) -> None:
    def interrupt(line: str) -> None:
        assert alive()
        raise Interruption(line)

    with pytest.raises(Interruption, match="started"):
        run(make_job("print('started')\ntime.sleep(6000)"), on_line=interrupt)
    assert alive() == set()


def test_relative_paths_are_those_of_the_caller(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(tmp_path)
    job = make_job(
        "report('done')",
        program=Path("program.py"),
        log_dir=Path("logs"),
        outcome_file=Path("outcome.json"),
        cwd=scratch,
    )
    assert run(job, on_line=print).status is Outcome.DONE
    assert not list(scratch.iterdir())


def test_job_and_caller_override_default_variables(
    make_job: MakeJob, marker: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOG_v", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    job = make_job(
        "print([os.environ[n] for n in ('GLOG_v', 'MS_NODE_TIMEOUT', 'OMP_NUM_THREADS')])",
        env={**marker, "MS_NODE_TIMEOUT": "40"},
    )
    _, lines = run_collecting(job)
    assert lines == [f"[rank 0] ['2', '40', '{len(os.sched_getaffinity(0))}']"]


def test_a_cann_that_mindspore_does_not_accept_is_said_although_ranks_log_errors_only(
    make_job: MakeJob, marker: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLOG_v", raising=False)
    body = "print('GLOG_v is', os.environ['GLOG_v'])\nreport('done')"

    def lines_with(version: str, device_target: str = "Ascend") -> list[str]:
        name = f"{version}-{device_target}"
        home = CannTree(compiler=version, libraries=()).write(tmp_path / name)
        env = {**marker, "ASCEND_HOME_PATH": str(home)}
        job = make_job(body, env=env, log_dir=tmp_path / f"logs-{name}")
        # As tasks give it.
        args = (*job.args, f"--device_target={device_target}")
        return run_collecting(dataclasses.replace(job, args=args))[1]

    warning, of_rank = lines_with("7.6.0.1.220")
    assert warning.startswith("[launcher] CANN 7.6.0.1.220 of ")
    assert "is not accepted by MindSpore" in warning
    assert of_rank == "[rank 0] GLOG_v is 3"
    assert lines_with(f"{(accepted_versions() or ())[-1]}.0") == [of_rank]
    assert lines_with("7.6.0.1.220", "CPU") == [of_rank]


def test_logs_of_an_earlier_attempt_are_refused(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job("report('done')")
    run(job, on_line=print)
    with pytest.raises(ValueError, match="is not empty"):
        run(job, on_line=print)


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"workers": 0}, "workers is 0"), ({"program": Path("absent.py")}, "absent.py is not a file")],
)
def test_impossible_jobs_are_refused(
    make_job: MakeJob, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        run(make_job("", **changes), on_line=print)


# Ranks under msrun


@pytest.mark.slow
def test_two_ranks_done(make_job: MakeJob, alive: Alive) -> None:
    job = make_job(
        """
        if rank == 0:
            Path(sys.argv[1]).write_text(json.dumps({"status": "done", "message": "all"}))
        """,
        head=MINDSPORE_RANK,
        workers=2,
    )
    result, lines = run_collecting(job)
    assert result.status is Outcome.DONE, result
    assert result.return_code == 0
    assert sorted(line for line in lines if "sum" in line) == [
        "[rank 0] sum 3 of 2 ranks",
        "[rank 1] sum 3 of 2 ranks",
    ]
    assert {"worker_0.log", "worker_1.log", "scheduler.log", "msrun.log"} == {
        path.name for path in job.log_dir.iterdir()
    }
    assert alive() == set()


FAILS_IN_A_COLLECTIVE_OPERATION = """
# Rank 0 has printed its sum once this returns on rank 1.
ops.AllReduce()(ms.Tensor([1.0], ms.float32)).asnumpy()
if rank == 1:
    print("failing")
    raise RuntimeError('no luck')
ops.AllReduce()(ms.Tensor([1.0], ms.float32)).asnumpy()
"""
IS_KILLED = """
print("started", flush=True)
time.sleep(1 if rank == 1 else 6000)
print("failing", flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "body", "cause"),
    [
        pytest.param(
            MINDSPORE_RANK,
            FAILS_IN_A_COLLECTIVE_OPERATION,
            "RuntimeError: no luck",
            id="others are in a collective operation",
        ),
        pytest.param(RANK, IS_KILLED, "rank 1 was killed by signal 9", id="killed"),
    ],
)
def test_lost_rank_ends_the_job_within_seconds(
    make_job: MakeJob, alive: Alive, head: str, body: str, cause: str
) -> None:
    job = make_job(body, head=head, workers=2)
    failing_since: list[float] = []

    def note_time(line: str) -> None:
        if "failing" in line:
            failing_since.append(time.monotonic())

    result = run(job, on_line=note_time)
    assert time.monotonic() - failing_since[0] < 60  # a collective operation waits for 900 s
    assert result.status is Outcome.LOST_WORKER
    assert "rank 1" in result.message
    assert cause in result.message
    assert str(job.log_dir) in result.message
    assert any(line.startswith("[rank 0]") for line in result.log_tail)
    assert alive() == set()


@pytest.mark.slow
def test_failure_of_all_ranks_at_once_is_explained(make_job: MakeJob) -> None:
    job = make_job("time.sleep(1)\nraise OSError('disk full')", workers=2)
    result = run(job, on_line=print)
    assert result.status is Outcome.LOST_WORKER
    assert re.search(r"rank [01] exited with 1", result.message)
    assert "OSError: disk full" in result.message


@pytest.mark.slow
def test_outcome_of_a_failed_job_of_two_ranks_is_returned(make_job: MakeJob) -> None:
    job = make_job("time.sleep(1)\nreport('user_error', 'no such recipe')\nsys.exit(2)", workers=2)
    result = run(job, on_line=print)
    assert (result.status, result.message) == (Outcome.USER_ERROR, "no such recipe")


@pytest.mark.slow
def test_a_rank_that_ends_before_it_is_found_ends_the_job(
    make_job: MakeJob, marker: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('MS_ROLE') == 'MS_WORKER': os._exit(7)"
    )
    env = {**marker, "PYTHONPATH": str(tmp_path)}
    result = run(make_job("", head=RANK_WITH_SCHEDULER, workers=2, env=env), on_line=print)
    assert result.status is Outcome.LOST_WORKER
    assert re.search(r"rank .*exited with 7", result.message)


@pytest.mark.slow
def test_failure_after_rank_0_reported_done_is_a_lost_rank(make_job: MakeJob) -> None:
    result = run(
        make_job("report('done')\ntime.sleep(1)\nsys.exit(rank * 7)", workers=2), on_line=print
    )
    assert result.status is Outcome.LOST_WORKER
    assert "rank 1 exited with 7, and rank 0 reported done" in result.message


def test_msrun_that_cannot_start_is_explained_by_its_own_log(
    make_job: MakeJob, marker: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mindspore.py").write_text("raise ImportError('broken installation')")
    result = run(
        make_job("", workers=2, env={**marker, "PYTHONPATH": str(tmp_path)}), on_line=print
    )
    assert (result.status, result.return_code) == (Outcome.LOST_WORKER, 1)
    assert "broken installation" in result.message
    assert "broken installation" in result.log_tail[-1]


@pytest.mark.long  # the silence must be longer than the ranks take to start
def test_hung_ranks_are_ended(make_job: MakeJob, alive: Alive) -> None:
    job = make_job("print('last line')\ntime.sleep(6000)", workers=2, silence=30)
    result, lines = run_collecting(job)
    assert sorted(lines) == ["[rank 0] last line", "[rank 1] last line"]
    assert (result.status, result.return_code) == (Outcome.LOST_WORKER, 143)
    assert "ended as hung" in result.message
    assert alive() == set()


@pytest.mark.slow
def test_exception_in_the_caller_ends_all_ranks(make_job: MakeJob, alive: Alive) -> None:
    def interrupt(line: str) -> None:
        raise Interruption(line)

    job = make_job("print('started')\ntime.sleep(6000)", workers=2)
    with pytest.raises(Interruption, match="started"):
        run(job, on_line=interrupt)
    assert alive() == set()


@pytest.mark.slow
def test_sigkill_of_the_caller_ends_all_ranks(make_job: MakeJob, alive: Alive) -> None:
    job = make_job("print('in step')\ntime.sleep(6000)", head=RANK_WITH_SCHEDULER, workers=2)
    with subprocess.Popen(
        [sys.executable, "-c", caller_of(job)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen = {"[rank 0] in step\n": False, "[rank 1] in step\n": False}
        for line in process.stdout:
            if line in seen:
                seen[line] = True
            if all(seen.values()):
                break
        roles = [p.environ().get("MS_ROLE") for p in alive()]
        assert roles.count("MS_WORKER") == 2
        assert roles.count("MS_SCHED") == 1
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not alive(), lambda: str(alive()))


@pytest.mark.slow
def test_bound_ranks_share_no_core(make_job: MakeJob) -> None:
    body = "print(sorted(os.sched_getaffinity(0)))\ntime.sleep(1)\nreport('done')"
    result, lines = run_collecting(make_job(body, workers=2, bind_core=True))
    assert result.status is Outcome.DONE, result
    printed = {line[6]: json.loads(line[9:]) for line in lines if line.startswith("[rank ")}
    assert printed.keys() == {"0", "1"}
    said = [line for line in lines if line.startswith("[launcher] ")]
    if (obstacle := binding_obstacle()) is None:
        assert not set(printed["0"]) & set(printed["1"]) or len(os.sched_getaffinity(0)) == 1
        assert said == [
            f"[launcher] rank {rank} has the cores {show_ranges(cores)}"
            for rank, cores in sorted(printed.items())
        ]
    else:
        assert printed["0"] == printed["1"]
        assert [line.endswith(obstacle) for line in said] == [True]


@pytest.mark.slow
def test_scheduler_that_is_killed_before_the_ranks_have_joined_ends_the_job(
    make_job: MakeJob, alive: Alive
) -> None:
    # The ranks wait for the scheduler, as in init().
    head = """
import os, signal, time
if os.environ["MS_ROLE"] == "MS_SCHED":
    time.sleep(5)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(6000)
"""
    result, _ = run_collecting(make_job("", head=head, workers=2))
    assert result.status is Outcome.LOST_WORKER
    assert result.message.startswith("msrun's scheduler was killed by signal 9, and ")
    assert alive() == set()
