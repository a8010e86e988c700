"""A gang of two hosts on Ray: whatever is lost, all ranks end in time and no process is left.

Most tests are about the launcher alone, so their ranks don't use MindSpore and start at once.
"""

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.launch.gang import Gang, hosts_to_take
from tests.hosts import Host
from tests.processes import MARK
from tests.ray_clusters import RayHosts, ray_hosts
from tests.waiting import HANG_SECONDS, wait_for

# A lost host must have ended the job after that time.
LIMIT_SECONDS = 30.0

MINDSPORE_RANK = """
import json, os, sys
from pathlib import Path
import mindspore as ms
from mindspore import ops
from mindspore.communication import get_group_size, get_rank, init
ms.set_device("CPU")
init()
for step in range(int(sys.argv[2])):
    total = ops.AllReduce()(ms.Tensor([get_rank() + 1.0], ms.float32)).asnumpy()[0]
    print(f"step {step} of {get_group_size()} ranks, sum {total:g}", flush=True)
if get_rank() == 0:
    Path(sys.argv[1]).write_text(json.dumps({"status": "done", "message": f"at step {step}"}))
"""
RANK = """
import json, os, signal, sys, time
from pathlib import Path
if os.environ.get("MS_ROLE") == "MS_SCHED":
    sys.exit()
stop = False
def request(*_):
    global stop
    stop = True
signal.signal(signal.SIGUSR1, request)
chosen = ("HCCL_", "MS_ALLOC", "MS_ASCEND", "UNRELATED")
print(json.dumps({n: v for n, v in os.environ.items() if n.startswith(chosen)}), flush=True)
step = 0
while not stop:
    if step < int(sys.argv[2]):
        print(f"step {step}", flush=True)
    step += 1
    time.sleep(0.1)
if os.environ["RANK_ID"] == "0":
    Path(sys.argv[1]).write_text(json.dumps({"status": "stopped", "message": "at a step"}))
"""
FILE_RANK = """
import json, os, sys
from pathlib import Path
if os.environ.get("MS_ROLE") == "MS_SCHED":
    sys.exit()
option, outcome = sys.argv[1:3]
print(Path(option.removeprefix("--file=")).read_text(), flush=True)
if os.environ["RANK_ID"] == "0":
    Path(outcome).write_text(json.dumps({"status": "done", "message": ""}))
"""
CALLER = """
import json, sys
from pathlib import Path
from infra.launch import Job
from infra.launch.gang import Gang, run_on_hosts
from tests.infra.launch import preparations
directory, mark, steps, silence, prepare = Path(sys.argv[1]), *sys.argv[2:]
job = Job(
    program=directory / "rank.py",
    args=(f"{directory}/outcome.json", steps),
    workers=1,
    log_dir=directory / "logs",
    outcome_file=directory / "outcome.json",
    cwd=directory,
    env={"SKNET_TEST_ID": mark, "OMP_NUM_THREADS": "1"},
    deadline=None,
    silence=float(silence),
)
gang = Gang(
    address="auto", hosts=2, slots=1, resource="CPU", usable=lambda ranks: True,
    # Ray needs about a minute to notice that a host whose link is cut has left.
    wait=300,
)
result = run_on_hosts(
    job,
    gang,
    on_line=lambda line: print(line, flush=True),
    prepare=eval(prepare, vars(preparations)) if prepare else None,
)
print(json.dumps([result.status, result.message]), flush=True)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayHosts]:
    with ray_hosts(2) as running:
        yield running


class Attempt:
    """A running gang, whose caller is on the head."""

    def __init__(
        self,
        cluster: RayHosts,
        directory: Path,
        rank: str,
        steps: int,
        silence: float,
        environment: dict[str, str],
        prepare: str,
    ) -> None:
        (directory / "rank.py").write_text(rank)
        self.mark = {MARK: uuid.uuid4().hex}
        self.directory = directory
        self.hosts = cluster.workers
        arguments = (directory, *self.mark.values(), steps, silence, prepare)
        self.process = cluster.start_on_head(
            *(sys.executable, "-c", CALLER, *arguments), stdout=subprocess.PIPE, env=environment
        )
        self.lines: list[str] = []

    def wait_until_all_are_in_step(self) -> None:
        self.wait_for_lines("[rank 0] step 3\n", "[rank 1] step 3\n")

    def wait_for_lines(self, *parts: str) -> None:
        """Read until each part has been in a line that was not read before."""
        assert self.process.stdout is not None
        awaited = set(parts)
        for line in iter(self.process.stdout.readline, ""):
            self.lines.append(line)
            awaited -= {part for part in awaited if part in line}
            if not awaited:
                return
        raise AssertionError(f"no {awaited} in {''.join(self.lines)}")

    def host_of_rank(self, rank: int) -> Host:
        (line,) = {line.split("]")[0] for line in self.lines if f"[rank {rank}] step" in line}
        return next(host for host in self.hosts if line.endswith(host.address))

    def rank(self, number: int) -> psutil.Process:
        role = {**self.mark, "MS_ROLE": "MS_WORKER", "RANK_ID": str(number)}
        (process,) = self.host_of_rank(number).marked(role)
        return process

    def result(self) -> tuple[str, str]:
        assert self.process.stdout is not None
        self.lines += self.process.stdout.readlines()
        assert self.process.wait(HANG_SECONDS) == 0, self.lines
        status, message = json.loads(self.lines[-1])
        return status, message

    def processes(self) -> list[psutil.Process]:
        return [process for host in self.hosts for process in host.marked(self.mark)]


@pytest.fixture
def start(cluster: RayHosts, tmp_path: Path) -> Iterator[Callable[..., Attempt]]:
    started: list[Attempt] = []

    def begin(
        rank: str = RANK,
        steps: int = 100_000,
        silence: float = 600,
        environment: dict[str, str] | None = None,
        prepare: str = "",
    ) -> Attempt:
        attempt = Attempt(cluster, tmp_path, rank, steps, silence, environment or {}, prepare)
        started.append(attempt)
        return attempt

    yield begin
    for attempt in started:
        attempt.process.kill()
        attempt.process.communicate()
        for process in attempt.processes():
            process.kill()


@pytest.mark.long
def test_ranks_of_two_hosts_are_one_world_whose_logs_reach_the_caller(
    start: Callable[..., Attempt],
) -> None:
    attempt = start(MINDSPORE_RANK, steps=3)
    assert attempt.result() == ("done", "at step 2")
    assert sum("step 2 of 2 ranks, sum 3" in line for line in attempt.lines) == 2
    assert attempt.host_of_rank(0) != attempt.host_of_rank(1)
    logs = attempt.directory / "logs"
    for rank in (0, 1):
        assert "step 2 of 2 ranks, sum 3\n" in (logs / f"worker_{rank}.log").read_text()
    leader, other = attempt.host_of_rank(0).address, attempt.host_of_rank(1).address
    assert {path.name for path in logs.iterdir()} == {
        *("worker_0.log", "worker_1.log"),
        *(f"{leader}-msrun.log", f"{leader}-scheduler.log", f"{other}-msrun.log"),
    }
    assert attempt.processes() == []


@pytest.mark.alone
def test_killed_caller_leaves_no_process(start: Callable[..., Attempt]) -> None:
    attempt = start()
    attempt.wait_until_all_are_in_step()
    began = time.monotonic()
    attempt.process.kill()
    wait_for(lambda: not attempt.processes(), lambda: str(attempt.processes()))
    ended = time.monotonic() - began
    print(f"caller killed: no process after {ended:.1f} s")
    assert ended < LIMIT_SECONDS


@pytest.mark.long
def test_silence_of_all_ranks_ends_the_gang(start: Callable[..., Attempt]) -> None:
    attempt = start(steps=4, silence=15)
    status, message = attempt.result()
    assert (status, message) == (
        "lost_worker",
        "no rank printed a line for 15 s: ended as hung",
    )
    assert attempt.processes() == []


@pytest.mark.alone
def test_request_to_stop_and_the_callers_variables_reach_the_ranks_of_all_hosts(
    start: Callable[..., Attempt], cluster: RayHosts
) -> None:
    travelling = {
        "HCCL_SOCKET_IFNAME": "=eth0",
        "HCCL_IF_BASE_PORT": "50000",
        "HCCL_HOST_SOCKET_PORT_RANGE": "50000-50031",
        "HCCL_DETERMINISTIC": "true",
        "HCCL_BUFFSIZE": "400",
        "HCCL_CONNECT_TIMEOUT": "900",
        "MS_ALLOC_CONF": "enable_vmm:True",
        "MS_ASCEND_CHECK_OVERFLOW_MODE": "INFNAN_MODE",
        "MS_ASCEND_ANYTHING": "else",
    }
    own, other = cluster.workers
    attempt = start(
        environment={**travelling, "HCCL_IF_IP": own.address, "UNRELATED": "to the job"}
    )
    attempt.wait_until_all_are_in_step()
    attempt.process.send_signal(signal.SIGUSR1)
    status, message = attempt.result()
    assert (status, message) == ("stopped", "at a step")
    assert attempt.processes() == []
    printed = {
        line.partition("]")[0].split()[-1]: json.loads(line.partition("] [rank ")[2][3:])
        for line in attempt.lines
        if "{" in line
    }
    default = {"HCCL_EXEC_TIMEOUT": "1836"}
    assert printed == {
        own.address: {**default, **travelling, "HCCL_IF_IP": own.address},
        other.address: {**default, **travelling},
    }
    left_out = f"[launcher] HCCL_IF_IP={own.address} is no address of this host, and is left out\n"
    assert [line.partition("] ")[2] for line in attempt.lines if "[launcher]" in line] == [left_out]


@pytest.mark.alone
def test_each_host_is_prepared_before_its_ranks_start_and_a_host_that_cannot_be_is_named(
    start: Callable[..., Attempt],
) -> None:
    attempt = start(FILE_RANK, prepare="Options()")
    assert attempt.result() == ("done", "")
    shown = {line.partition("] ")[2] for line in attempt.lines if "[rank " in line}
    assert {"[rank 0] host 0\n", "[rank 1] host 1\n"} <= shown
    status, message = start(prepare="Refusal(1)").result()
    assert status == "user_error"
    assert message.endswith("can't be prepared: it has no disk for this")


@pytest.mark.long
@pytest.mark.parametrize("leaves", [False, True])
def test_a_stop_does_not_wait_for_hosts_that_are_being_prepared(
    leaves: bool, start: Callable[..., Attempt], cluster: RayHosts
) -> None:
    attempt = start(prepare="Endless()")
    attempt.wait_for_lines("host 0 waits", "host 1 waits")
    if leaves:
        leaving = cluster.workers[0]
        leave = cluster.start_on(leaving, sys.executable, "-m", "infra.launch.leave")
        attempt.wait_for_lines("all ranks have stopped (ended on request, before the first step)")
        assert leave.wait(HANG_SECONDS) == 0
        cluster.join(leaving)
        attempt.wait_for_lines("host 0 waits", "host 1 waits")
    attempt.process.send_signal(signal.SIGUSR1)
    assert attempt.result() == ("stopped", "ended on request, before the first step")


@pytest.mark.long
def test_a_stop_lasts_until_what_was_saved_is_safe_and_says_if_it_is_not(
    start: Callable[..., Attempt],
) -> None:
    attempt = start(prepare="SlowSave(12)")
    attempt.wait_until_all_are_in_step()
    began = time.monotonic()
    attempt.process.send_signal(signal.SIGUSR1)
    assert attempt.result() == ("stopped", "at a step")
    assert time.monotonic() - began > 12, "longer than hosts have that only end their ranks"
    attempt = start(prepare="SlowSave(0, failure='the last checkpoint is not uploaded')")
    attempt.wait_until_all_are_in_step()
    attempt.process.send_signal(signal.SIGUSR1)
    status, message = attempt.result()
    assert status == "stopped"
    assert message.startswith("ended on request; host ")
    assert message.endswith(": the last checkpoint is not uploaded")


@pytest.mark.long
def test_all_ranks_save_when_a_host_leaves_and_go_on_once_there_is_another_one(
    start: Callable[..., Attempt], cluster: RayHosts
) -> None:
    attempt = start()
    attempt.wait_until_all_are_in_step()
    leaving = attempt.host_of_rank(1)
    leave = cluster.start_on(leaving, sys.executable, "-m", "infra.launch.leave")
    attempt.wait_for_lines(
        f"{leaving.address} has to leave: all ranks save and stop",
        "all ranks have stopped (at a step); going on without that host",
    )
    assert leave.wait(HANG_SECONDS) == 0
    assert attempt.processes() == []
    cluster.join(leaving)
    attempt.wait_until_all_are_in_step()
    attempt.process.send_signal(signal.SIGUSR1)
    assert attempt.result() == ("stopped", "at a step")
    first, second = (attempt.directory / name for name in ("logs", "logs-1"))
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}


@pytest.mark.alone
def test_the_head_cannot_leave(cluster: RayHosts) -> None:
    command = (sys.executable, "-m", "infra.launch.leave")
    ended = subprocess.run(
        cluster.head.command(*command),
        env=cluster.environment,
        check=False,
        capture_output=True,
        text=True,
    )
    head = "error: this host is the head of its Ray cluster, which can't go on without it\n"
    assert (ended.returncode, ended.stderr) == (2, head)


def kill_rank(attempt: Attempt) -> None:
    attempt.rank(1).kill()


def freeze_rank(attempt: Attempt) -> None:
    attempt.rank(1).suspend()


def kill_agent(attempt: Attempt) -> None:
    """Kill Ray's process of the actor, below which the host's ranks run."""
    rank = attempt.rank(1)
    agent = next(parent for parent in rank.parents() if "ray::" in parent.name())
    agent.kill()


def cut_link(attempt: Attempt) -> None:
    attempt.host_of_rank(1).cut()


def cut_master(attempt: Attempt) -> None:
    attempt.host_of_rank(0).cut()


LOSSES = [
    pytest.param(cut_master, "did not answer for 10 s", id="link of the master's host"),
    pytest.param(kill_rank, "was killed by signal 9", id="rank killed", marks=pytest.mark.long),
    pytest.param(
        freeze_rank, "was stopped by a signal (SIGSTOP)", id="rank frozen", marks=pytest.mark.long
    ),
    pytest.param(kill_agent, "was lost: ", id="agent killed", marks=pytest.mark.long),
    pytest.param(
        cut_link, "did not answer for 10 s", id="link of another host", marks=pytest.mark.long
    ),
]


# The last in this file, as Ray needs a while to notice a cut link, and to accept the host again.
@pytest.mark.alone
@pytest.mark.parametrize(("lose", "cause"), LOSSES)
def test_loss_ends_the_gang_in_time(
    lose: Callable[[Attempt], None], cause: str, start: Callable[..., Attempt]
) -> None:
    attempt = start()
    attempt.wait_until_all_are_in_step()
    began = time.monotonic()
    lose(attempt)
    status, message = attempt.result()
    detected = time.monotonic() - began
    wait_for(lambda: not attempt.processes(), lambda: str(attempt.processes()))
    ended = time.monotonic() - began
    for host in attempt.hosts:
        host.mend()
    # These are the figures of docs/clusters.md.
    print(f"{lose.__name__}: result after {detected:.1f} s, no process after {ended:.1f} s")
    assert status == "lost_worker"
    assert cause in message
    assert ended < LIMIT_SECONDS


@pytest.mark.parametrize(
    ("alive", "planned", "usable", "taken"),
    [(4, 4, {4, 2}, 4), (3, 4, {4, 2}, 2), (9, 4, {8, 4}, 4), (1, 4, {4, 2}, 0), (0, 2, {2}, 0)],
)
def test_as_many_hosts_are_taken_as_can_share_the_batch(
    alive: int, planned: int, usable: set[int], taken: int
) -> None:
    gang = Gang(
        address="auto",
        hosts=planned,
        slots=1,
        resource="CPU",
        usable=usable.__contains__,
        wait=0,
    )
    assert hosts_to_take(alive, gang) == taken
