"""Run a program as ranks on several hosts of a Ray cluster: on all of them, or on none.

A placement group reserves the hosts; an actor on each host prepares it and, once all hosts are
prepared, runs msrun for its ranks, under the same supervisor as a job on one host. Whatever ends
the ranks of one host ends all others: a lost rank, a lost host, a cut link, or the loss of the
caller. If a host is told to leave the cluster, all ranks save and stop, and the job goes on with
the hosts that are left.

The hosts need the same installation under the same paths. Ray carries commands, log lines, progress
and the outcome, and nothing else: what the program reads and writes is what the preparation of each
host has brought there, or a file system that the hosts share.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from io import TextIOWrapper
from itertools import count as count_from
from types import ModuleType
from typing import Any, Literal

from infra.base.files import replace_file
from infra.base.outcomes import Outcome
from infra.launch.cluster import ClusterError, LostHostError, connect, leaving_hosts
from infra.launch.environment import seconds, travelling_environment
from infra.launch.host_agent import HostAddress, HostAgent
from infra.launch.job import Control, Job, JobResult, Preparation, Rendezvous, run_to_end

POLL_SECONDS = 0.5
# Wait for the outcome of rank 0 when another rank has failed first.
OUTCOME_SECONDS = 3.0
# Wait for hosts that answer to report that their ranks have ended, including SIGKILL.
END_SECONDS = 8.0
# Ray itself looks for a new set of hosts as soon as one joins or leaves.
RETRY_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Gang:
    """The hosts that a job needs."""

    address: str
    """Address of the cluster: `auto`, or `ray://HOST:PORT`."""
    hosts: int
    """Planned number of hosts."""
    slots: int
    """Number of ranks on each host."""
    resource: Literal["CPU", "NPU"]
    """Ray's resource of which each rank takes one."""
    usable: Callable[[int], bool]
    """Tells whether the program can run with this total number of ranks."""
    wait: float
    """Seconds to wait for missing hosts before fewer are taken."""


def run_on_hosts(
    job: Job,
    gang: Gang,
    *,
    on_line: Callable[[str], None],
    prepare: Preparation | None = None,
) -> JobResult:
    """Run `job` on hosts of the cluster to its end and return how it ended.

    SIGUSR1 and interruptions let all ranks save and stop, as in `infra.launch.msrun.run`.

    So does a host that has to leave the cluster (Ray's drain, see `infra.launch.leave`); then the
    program is started again, on the hosts that are left or that have come, and must go on where it
    has stopped. This may happen any number of times.

    Args:
        job: The job. `workers` is replaced by the gang's slots. `log_dir` gets the lines of all
            ranks, and msrun's logs; `log_dir` with `-1`, `-2`, …, those after a host has left.
            `cwd`, `outcome_file` and `progress_file` are replaced by paths of each host, the last
            two also in `args`; this host's `progress_file` follows that of rank 0.
        gang: The hosts.
        on_line: Called for each line that a rank prints, with `[<host>] [rank <rank>] <line>`, and
            for each of the launcher on a host, with `[<host>] [launcher] <line>`.
        prepare: Prepares each host, before any rank starts; None: there is nothing to prepare.

    Raises:
        ClusterError: The cluster doesn't exist, or can never run such a job.
        LostHostError: Too few hosts were available in time.
    """
    environment = {**travelling_environment(), **job.env}
    ray = connect(gang.address)
    try:
        for number in count_from():
            suffix = f"-{number}" if number else ""
            log_dir = job.log_dir.with_name(f"{job.log_dir.name}{suffix}")
            log_dir.mkdir(parents=True, exist_ok=True)
            placed_job = replace(job, workers=gang.slots, env=environment, log_dir=log_dir)
            with _placed(ray, gang, on_line) as hosts:
                attempt = _GangRun(placed_job, prepare, hosts, on_line)
                result = attempt.run()
            if not attempt.must_go_on(result):
                break
            on_line(f"all ranks have stopped ({result.message}); going on without that host")
        return result
    finally:
        ray.shutdown()


def hosts_to_take(alive: int, gang: Gang) -> int:
    """Return the largest number of hosts with which the program can run, up to the planned one.

    Returns:
        0 if the program can't run with any number of the hosts that are alive.
    """
    counts = range(min(alive, gang.hosts), 0, -1)
    return next((count for count in counts if gang.usable(count * gang.slots)), 0)


class _Host:
    """One host, as the caller sees it through the actor on it."""

    def __init__(self, ray: ModuleType, actor: Any, address: HostAddress) -> None:
        self.address = address
        self.result: JobResult | None = None
        self.lost: str | None = None
        """Why the host counts as lost."""
        self.launch_logs: dict[str, str] = {}
        self.is_prepared = False
        self.progress: bytes | None = None
        self.ranks: JobResult | None = None
        """How the ranks have ended, while what they have saved is brought to safety."""
        self.must_leave = False
        """Whether it has been told to leave the cluster."""
        self._ray, self._actor = ray, actor
        self._asked_at = time.monotonic()
        self._answer: Any = None
        self._accepted: Any = None

    @property
    def name(self) -> str:
        return f"{self.address.name} {self.address.address}"

    @property
    def has_ended(self) -> bool:
        return self.result is not None or self.lost is not None

    @property
    def is_saving(self) -> bool:
        """Whether its ranks have ended, and what they have saved is brought to safety."""
        return self.ranks is not None and not self.has_ended

    def has_failed(self, *, stop_asked: bool) -> bool:
        """Tell whether its ranks have ended as they should not."""
        good = (Outcome.DONE, Outcome.STOPPED) if stop_asked else (Outcome.DONE,)
        known = self.result or self.ranks
        return self.lost is not None or (known is not None and known.status not in good)

    @property
    def reported(self) -> JobResult | None:
        """The result, if the program itself reported how it ended, and not that it is done."""
        known = self.result or self.ranks
        if known is None or known.status in (Outcome.DONE, Outcome.LOST_WORKER):
            return None
        return known

    def prepare(self, job: Job, prepare: Preparation | None, number: int) -> None:
        self._accepted = self._actor.prepare.remote(job, prepare, number)
        self._ask()

    def free_port(self) -> int | None:
        """Return a free port of the host; None if it doesn't answer, and counts as lost."""
        try:
            answer = self._actor.free_port.remote()
            port: int = self._ray.get(answer, timeout=seconds("host_silence"))
        except self._ray.exceptions.RayError as error:
            self.lost = _first_line(error)
            return None
        return port

    def begin(self, rendezvous: Rendezvous) -> None:
        self._actor.begin.remote(rendezvous)

    def stop(self) -> None:
        self._actor.stop.remote()

    def end(self, because: str) -> None:
        self._actor.end.remote(because)

    def poll(self) -> tuple[str, ...]:
        """Return the lines since the last call, and update `result` and `lost`."""
        if self.has_ended:
            return ()
        done, _ = self._ray.wait([self._answer], timeout=0)
        if not done:
            if time.monotonic() - self._asked_at > seconds("host_silence"):
                self.lost = f"did not answer for {seconds('host_silence'):g} s"
            return ()
        try:
            report = self._ray.get(self._answer)
            if self._accepted is not None and self._ray.wait([self._accepted], timeout=0)[0]:
                # What it was given may not exist in the version that is installed there.
                accepted, self._accepted = self._accepted, None
                self._ray.get(accepted)
        except self._ray.exceptions.RayError as error:
            self.lost = _first_line(error)
            return ()
        self.result, self.launch_logs = report.result, report.launch_logs
        self.is_prepared, self.progress = report.is_prepared, report.progress
        self.ranks = report.ranks
        self.must_leave = report.must_leave
        if not self.has_ended:
            self._ask()
        return tuple(report.lines)

    def _ask(self) -> None:
        self._answer = self._actor.report.remote()
        self._asked_at = time.monotonic()


class _GangRun:
    """One attempt, from the start of the first rank to the end of the last."""

    def __init__(
        self,
        job: Job,
        prepare: Preparation | None,
        hosts: list[_Host],
        on_line: Callable[[str], None],
    ) -> None:
        self._job, self._prepare = job, prepare
        self._hosts, self._on_line = hosts, on_line
        self._logs: dict[int, TextIOWrapper] = {}
        self._control = Control()
        self._stop_sent = False
        self._has_begun = False
        self._progress: list[bytes | None] = [None for _ in hosts]
        self._leaving: _Host | None = None
        self._last_sign = time.monotonic()
        self._is_hung = False

    def run(self) -> JobResult:
        began = time.monotonic()
        with ExitStack() as stack:
            for rank in range(self._num_workers):
                path = self._job.log_dir / f"worker_{rank}.log"
                self._logs[rank] = stack.enter_context(path.open("w", encoding="utf-8"))
            for number, host in enumerate(self._hosts):
                # The limit holds for the silence of all ranks, which only the caller can see.
                host.prepare(replace(self._job, silence=None), self._prepare, number)
            run_to_end(self._control, self._follow, self._end_all)
        for host in self._hosts:
            for name, text in host.launch_logs.items():
                (self._job.log_dir / f"{host.address.address}-{name}").write_text(text, "utf-8")
        return self._result(time.monotonic() - began)

    @property
    def _num_workers(self) -> int:
        return len(self._hosts) * self._job.workers

    def must_go_on(self, result: JobResult) -> bool:
        """Tell whether all ranks have stopped only because a host has to leave."""
        by_request = self._control.stop or self._leaving is None
        return not by_request and result.status is Outcome.STOPPED

    def _follow(self) -> None:
        """Return when all hosts have ended, one has failed, or all ranks are silent for too long.

        After a failure, wait a moment for the outcome of rank 0, which explains more.
        """
        failed_at: float | None = None
        while not all(host.has_ended for host in self._hosts):
            if self._leaving is None and (left := [h for h in self._hosts if h.must_leave]):
                self._leaving = left[0]
                self._on_line(f"host {left[0].name} has to leave: all ranks save and stop")
            # Before the lines, because the caller may take long to handle one.
            if (self._control.stop or self._leaving) and not self._stop_sent:
                self._stop_sent = True
                if not self._has_begun:
                    return
                for host in self._hosts:
                    host.stop()
            self._pass_lines_on()
            if not self._has_begun and all(host.is_prepared for host in self._hosts):
                self._begin()
            silent = time.monotonic() - self._last_sign
            if self._job.silence is not None and silent > self._job.silence:
                self._is_hung = True
                return
            if any(host.has_failed(stop_asked=self._stop_sent) for host in self._hosts):
                failed_at = failed_at or time.monotonic()
                if any(host.reported for host in self._hosts if host.has_failed(stop_asked=False)):
                    return
                if time.monotonic() - failed_at > OUTCOME_SECONDS:
                    return
            time.sleep(POLL_SECONDS)

    def _begin(self) -> None:
        """Start the ranks on all hosts, as ranks wait for each other only for a limited time."""
        leader = self._hosts[0]
        port = leader.free_port()
        if port is None:
            return
        self._has_begun = True
        self._last_sign = time.monotonic()
        for node_rank, host in enumerate(self._hosts):
            host.begin(
                Rendezvous(
                    num_workers=self._num_workers,
                    address=leader.address.address,
                    port=port,
                    node_rank=node_rank,
                )
            )

    def _end_all(self) -> None:
        """End the ranks of all hosts that answer; others end theirs when they miss the caller.

        What their ranks have saved they bring to safety first, which has limits of its own.
        """
        because = next((f"host {h.name} was lost" for h in self._hosts if h.lost), "the job ended")
        for host in self._hosts:
            if not host.has_ended:
                host.end(because)
        began = time.monotonic()
        while at_work := [host for host in self._hosts if not host.has_ended]:
            is_saving = any(host.is_saving for host in at_work)
            if not is_saving and time.monotonic() - began > END_SECONDS:
                return
            self._pass_lines_on()
            time.sleep(POLL_SECONDS / 5)

    def _pass_lines_on(self) -> None:
        for host in self._hosts:
            for line in host.poll():
                if line.startswith("[rank "):
                    self._last_sign = time.monotonic()
                    rank, _, text = line.removeprefix("[rank ").partition("] ")
                    self._logs[int(rank)].write(f"{text}\n")
                self._on_line(f"[{host.name}] {line}")
        known = [host.progress for host in self._hosts]
        if known == self._progress:
            return
        if not self._has_begun:
            self._last_sign = time.monotonic()
        first, shown = known[0], self._progress[0]
        self._progress = known
        if self._job.progress_file is not None and first is not None and first != shown:
            with suppress(OSError):  # nothing fails because its progress can't be shown
                replace_file(self._job.progress_file, first)

    def _result(self, took: float) -> JobResult:
        """Return what a rank reported, else what was lost first.

        Ranks that have stopped count only if the host of rank 0, which saves, says so.
        """
        first = self._hosts[0]
        results = [host.result for host in self._hosts if host.result]
        tail = tuple(line for result in results for line in result.log_tail)
        reported = [host.reported for host in self._hosts if host.reported]
        errors = [result for result in reported if result.status is not Outcome.STOPPED]
        for result in (*errors, first.reported):
            if result is not None:
                return replace(result, seconds=took, log_tail=tail)
        if all(host.result and host.result.status is Outcome.DONE for host in self._hosts):
            return replace(results[0], seconds=took, log_tail=tail)
        losses = "; ".join(self._losses())
        if self._stop_sent and not self._has_begun:
            status, message = Outcome.STOPPED, "ended on request, before the first step"
        elif self._control.stop:
            status, message = Outcome.STOPPED, f"ended on request{losses and f'; {losses}'}"
        else:
            status, message = Outcome.LOST_WORKER, losses
        return JobResult(
            status=status, message=message, return_code=143, seconds=took, log_tail=tail
        )

    def _losses(self) -> Iterator[str]:
        if self._is_hung and self._has_begun:
            yield f"no rank printed a line for {self._job.silence:g} s: ended as hung"
            return
        if self._is_hung:
            yield f"no host could go on with its preparation for {self._job.silence:g} s"
            return
        for host in [host for host in self._hosts if host.lost]:
            yield f"host {host.name} was lost: {host.lost}"
        for host in self._hosts:
            # See _end_all: the loss of another host ended these ranks.
            by_us = host.result and "was lost" in host.result.message.partition("\n")[0]
            if host.result and host.result.status is Outcome.LOST_WORKER and not by_us:
                yield f"host {host.name}: {host.result.message}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def _placed(ray: ModuleType, gang: Gang, log: Callable[[str], None]) -> Iterator[list[_Host]]:
    """Start agents on the planned hosts, or on fewer if some are missing after `gang.wait`."""
    num_ranks = gang.hosts * gang.slots
    if not gang.usable(num_ranks):
        raise ClusterError(f"the global batch can't be divided among {num_ranks} ranks")
    take_fewer_at = time.monotonic() + gang.wait
    give_up_at = take_fewer_at + 4 * seconds("placement")
    while True:
        leaving = _leaving_hosts(ray)
        alive = sum(
            node["Alive"]
            and node["NodeID"] not in leaving
            and node["Resources"].get(gang.resource, 0) >= gang.slots
            for node in ray.nodes()
        )
        count = hosts_to_take(alive, gang)
        if count == gang.hosts or (count and time.monotonic() > take_fewer_at):
            with _try_to_place(ray, gang, count) as hosts:
                if hosts:
                    names = ", ".join(host.name for host in hosts)
                    log(f"{count} of {gang.hosts} hosts, {gang.slots} ranks each: {names}")
                    yield hosts
                    return
        if time.monotonic() > give_up_at:
            raise LostHostError(
                f"{gang.hosts} hosts were planned, {alive} with {gang.slots} {gang.resource} are "
                f"alive; no usable number of them was free within {gang.wait:g} s"
            )
        time.sleep(RETRY_SECONDS)


def _leaving_hosts(ray: ModuleType) -> set[str]:
    """Return the node ids of the hosts that have to leave, as far as they can be learnt."""
    # A task, because a client outside the cluster can't ask its head.
    ask = ray.remote(num_cpus=0)(leaving_hosts)
    try:
        found: set[str] = ray.get(ask.remote(), timeout=seconds("placement"))
    except ray.exceptions.RayError:
        return set()
    return found


@contextmanager
def _try_to_place(ray: ModuleType, gang: Gang, count: int) -> Iterator[list[_Host]]:
    """Start agents on `count` different hosts, or on none if one is not available now."""
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([{gang.resource: gang.slots}] * count, strategy="STRICT_SPREAD")
    actors: list[Any] = []
    try:
        if not group.wait(seconds("placement")):
            yield []
            return
        needs: dict[str, Any] = {"num_cpus": gang.slots}
        if gang.resource != "CPU":
            needs = {"num_cpus": 0, "resources": {gang.resource: gang.slots}}
        agent = ray.remote(HostAgent)
        for index in range(count):
            strategy = PlacementGroupSchedulingStrategy(group, index)
            actors.append(agent.options(scheduling_strategy=strategy, **needs).remote())
        try:
            answers = [
                actor.locate.remote(address)
                for actor, address in zip(actors, _addresses(ray, group, count), strict=True)
            ]
            located = ray.get(answers, timeout=seconds("placement"))
        except (KeyError, ray.exceptions.RayError):
            yield []
            return
        yield [_Host(ray, actor, address) for actor, address in zip(actors, located, strict=True)]
    finally:
        for actor in actors:
            ray.kill(actor)
        remove_placement_group(group)


def _addresses(ray: ModuleType, group: Any, count: int) -> list[str]:
    """Return the address of each bundle's node.

    Raises:
        KeyError: A node has left the cluster.
    """
    from ray.util import placement_group_table

    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    node_ids = placement_group_table(group)["bundles_to_node_id"]
    return [nodes[node_ids[index]] for index in range(count)]
