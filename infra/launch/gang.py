"""Run a program as ranks on several hosts of a Ray cluster: all of them, or none.

A placement group reserves the hosts, an actor on each runs msrun for its share of the ranks under
the same supervisor as on one host. Whatever ends one host's share ends the others': a lost rank,
a lost host, a cut link, the loss of the caller.

Hosts need the same installation under the same paths, and a file system that all of them share for
what the program reads and for its checkpoints. Logs and the outcome need none: they come through
Ray.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from infra.base.outcomes import Outcome
from infra.launch.cluster import ClusterError, LostHostError, connect
from infra.launch.environment import seconds, travelling_environment
from infra.launch.host_agent import HostAgent, Place
from infra.launch.job import Control, Job, JobResult, Rendezvous, stop_on_signal

POLL_SECONDS = 0.5
# For the outcome of rank 0, when another rank has failed first.
LAST_WORDS_SECONDS = 3.0
# For hosts that answer to say that their ranks have ended, SIGKILL included.
END_SECONDS = 8.0
# Ray itself looks for a new set of hosts as soon as one joins or leaves.
RETRY_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Gang:
    """The hosts that a job wants."""

    address: str
    """Of the cluster: `auto`, or `ray://HOST:PORT`."""
    hosts: int
    """As planned."""
    slots: int
    """Ranks on each host."""
    resource: Literal["CPU", "NPU"]
    """What a rank takes one of, in Ray's terms."""
    usable: Callable[[int], bool]
    """Whether the program can run with so many ranks in total."""
    wait: float
    """Seconds to wait for missing hosts before fewer are taken."""


def run_on_hosts(job: Job, gang: Gang, *, on_line: Callable[[str], None]) -> JobResult:
    """Run `job` on hosts of the cluster to its end and return how it ended, as `run` does.

    `on_line` receives `[<host>] [rank <rank>] <line>`. `job.workers` is replaced by the gang's
    slots; `job.log_dir` gets the ranks' lines and msrun's logs; `job.cwd` and `job.outcome_file`
    are replaced by files of each host, the latter wherever an argument names it.

    SIGUSR1 and exceptions that are no Exception ask all ranks to stop, as in `run`.

    Raises:
        ClusterError: no such cluster, or it can never hold such a job.
        LostHostError: no usable number of hosts could be had in time.
    """
    job.log_dir.mkdir(parents=True, exist_ok=True)
    ray = connect(gang.address)
    try:
        with _placed(ray, gang, on_line) as hosts:
            travelling = {**travelling_environment(), **job.env}
            here = replace(job, workers=gang.slots, env=travelling)
            return _Watch(here, hosts, on_line).run()
    finally:
        ray.shutdown()


def hosts_to_take(alive: int, gang: Gang) -> int:
    """The largest number of hosts, up to the planned one, with which the program can run; or 0."""
    counts = range(min(alive, gang.hosts), 0, -1)
    return next((count for count in counts if gang.usable(count * gang.slots)), 0)


class _Host:
    """The caller's view of one host."""

    def __init__(self, ray: Any, actor: Any, place: Place) -> None:
        self.place = place
        self.result: JobResult | None = None
        self.lost: str | None = None
        self.launch_logs: dict[str, str] = {}
        self._ray, self._actor = ray, actor
        self._asked_at = time.monotonic()
        self._question: Any = None

    @property
    def name(self) -> str:
        return f"{self.place.host} {self.place.address}"

    @property
    def over(self) -> bool:
        return self.result is not None or self.lost is not None

    def start(self, job: Job) -> None:
        self._actor.start.remote(job)
        self._ask()

    def stop(self) -> None:
        self._actor.stop.remote()

    def end(self, because: str) -> None:
        self._actor.end.remote(because)

    def news(self) -> tuple[str, ...]:
        """The lines since the last call; notes a result, or that the host is lost."""
        if self.over:
            return ()
        done, _ = self._ray.wait([self._question], timeout=0)
        if not done:
            if time.monotonic() - self._asked_at > seconds("host_silence"):
                self.lost = f"did not answer for {seconds('host_silence'):g} s"
            return ()
        try:
            report = self._ray.get(self._question)
        except self._ray.exceptions.RayError as error:
            self.lost = str(error).strip().partition("\n")[0]
            return ()
        self.result, self.launch_logs = report.result, report.launch_logs
        if not self.over:
            self._ask()
        return tuple(report.lines)

    def _ask(self) -> None:
        self._question = self._actor.report.remote()
        self._asked_at = time.monotonic()


class _Watch:
    """One attempt, from the start of the ranks to the end of the last."""

    def __init__(self, job: Job, hosts: list[_Host], on_line: Callable[[str], None]) -> None:
        self._job, self._hosts, self._on_line = job, hosts, on_line
        self._logs: dict[int, Any] = {}
        self._control = Control()
        self._stop_passed_on = False
        self._last_line = time.monotonic()
        self._hung = False

    def run(self) -> JobResult:
        began = time.monotonic()
        leader = self._hosts[0].place
        slots = self._job.workers
        with ExitStack() as stack:
            for rank in range(len(self._hosts) * slots):
                path = self._job.log_dir / f"worker_{rank}.log"
                self._logs[rank] = stack.enter_context(path.open("w", encoding="utf-8"))
            for node_rank, host in enumerate(self._hosts):
                place = Rendezvous(
                    num_workers=len(self._hosts) * slots,
                    address=leader.address,
                    port=leader.port,
                    node_rank=node_rank,
                )
                # Silence of all ranks is what counts, and only the caller hears them all
                host.start(replace(self._job, rendezvous=place, silence=None))
            try:
                with stop_on_signal(self._control):
                    self._until_first_end()
            except Exception:
                raise
            except BaseException:
                self._control.stop = True
                with suppress(BaseException):  # a second one is the end of patience
                    self._until_first_end()
                raise
            finally:
                self._end_all()
        for host in self._hosts:
            for name, text in host.launch_logs.items():
                (self._job.log_dir / f"{host.place.address}-{name}").write_text(text, "utf-8")
        return self._judge(time.monotonic() - began)

    def _until_first_end(self) -> None:
        """Until all hosts are done, or one is not; then a little longer for rank 0's word.

        Or until no rank has said anything for too long.
        """
        failed_at: float | None = None
        while not all(host.over for host in self._hosts):
            # First, as the caller may take long over a line
            if self._control.stop and not self._stop_passed_on:
                self._stop_passed_on = True
                for host in self._hosts:
                    host.stop()
            self._relay()
            silent = time.monotonic() - self._last_line
            if self._job.silence is not None and silent > self._job.silence:
                self._hung = True
                return
            if any(_ended_badly(host) for host in self._hosts):
                failed_at = failed_at or time.monotonic()
                if any(_is_said(host) for host in self._hosts):
                    return
                if time.monotonic() - failed_at > LAST_WORDS_SECONDS:
                    return
            time.sleep(POLL_SECONDS)

    def _end_all(self) -> None:
        """Hosts that answer end their ranks now; the others, when they miss the caller."""
        because = next((f"host {h.name} was lost" for h in self._hosts if h.lost), "the job ended")
        for host in self._hosts:
            if not host.over:
                host.end(because)
        deadline = time.monotonic() + END_SECONDS
        while not all(host.over for host in self._hosts) and time.monotonic() < deadline:
            self._relay()
            time.sleep(POLL_SECONDS / 5)

    def _relay(self) -> None:
        for host in self._hosts:
            for line in host.news():
                self._last_line = time.monotonic()
                rank, _, text = line.removeprefix("[rank ").partition("] ")
                self._logs[int(rank)].write(f"{text}\n")
                self._on_line(f"[{host.name}] {line}")

    def _judge(self, took: float) -> JobResult:
        """The word of a rank that said how it ended, or what was lost first."""
        results = [host.result for host in self._hosts if host.result]
        tail = tuple(line for result in results for line in result.log_tail)
        said = [host.result for host in self._hosts if host.result and _is_said(host)]
        if said:
            return replace(said[0], seconds=took, log_tail=tail)
        if all(host.result and host.result.status is Outcome.DONE for host in self._hosts):
            return replace(results[0], seconds=took, log_tail=tail)
        if self._control.stop:
            status, message = Outcome.STOPPED, "ended on request"
        else:
            status, message = Outcome.LOST_WORKER, "; ".join(self._losses())
        return JobResult(
            status=status, message=message, return_code=143, seconds=took, log_tail=tail
        )

    def _losses(self) -> Iterator[str]:
        if self._hung:
            yield f"no rank printed a line for {self._job.silence:g} s: ended as hung"
            return
        for host in [host for host in self._hosts if host.lost]:
            yield f"host {host.name} was lost: {host.lost}"
        for host in self._hosts:
            ours = host.result and "was lost" in host.result.message.partition("\n")[0]
            if host.result and host.result.status is Outcome.LOST_WORKER and not ours:
                yield f"host {host.name}: {host.result.message}"


def _ended_badly(host: _Host) -> bool:
    return host.lost is not None or (
        host.result is not None and host.result.status is not Outcome.DONE
    )


def _is_said(host: _Host) -> bool:
    """Whether it is known how the job ended on the host, other than well and not just suddenly."""
    return host.result is not None and host.result.status not in (
        Outcome.DONE,
        Outcome.LOST_WORKER,
    )


@contextmanager
def _placed(ray: Any, gang: Gang, say: Callable[[str], None]) -> Iterator[list[_Host]]:
    """Agents on as many hosts as can be had: the planned ones within `wait`, or fewer."""
    if not gang.usable(gang.hosts * gang.slots):
        raise ClusterError(f"{gang.hosts * gang.slots} ranks can't share the global batch")
    patience = time.monotonic() + gang.wait
    give_up = patience + 4 * seconds("placement")
    while True:
        alive = sum(
            node["Alive"] and node["Resources"].get(gang.resource, 0) >= gang.slots
            for node in ray.nodes()
        )
        count = hosts_to_take(alive, gang)
        late = time.monotonic() > patience
        if count == gang.hosts or (count and late):
            with _try_to_place(ray, gang, count) as hosts:
                if hosts:
                    names = ", ".join(host.name for host in hosts)
                    say(f"{count} of {gang.hosts} hosts, {gang.slots} ranks each: {names}")
                    yield hosts
                    return
        if time.monotonic() > give_up:
            raise LostHostError(
                f"{alive} hosts with {gang.slots} {gang.resource} each are there, {gang.hosts} "
                f"were planned; no usable number of them was free within {gang.wait:g} s"
            )
        time.sleep(RETRY_SECONDS)


@contextmanager
def _try_to_place(ray: Any, gang: Gang, count: int) -> Iterator[list[_Host]]:
    """Agents on `count` different hosts, or none if one of them can't be had now."""
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([{gang.resource: gang.slots}] * count, strategy="STRICT_SPREAD")
    actors: list[Any] = []
    try:
        if not group.wait(seconds("placement")):
            yield []
            return
        own: dict[str, Any] = {"num_cpus": gang.slots}
        if gang.resource != "CPU":
            own = {"num_cpus": 0, "resources": {gang.resource: gang.slots}}
        agent = ray.remote(HostAgent)
        for index in range(count):
            strategy = PlacementGroupSchedulingStrategy(group, index)
            actors.append(agent.options(scheduling_strategy=strategy, **own).remote())
        try:
            addresses = _addresses(ray, group, count)
            asked = [
                actor.place.remote(address)
                for actor, address in zip(actors, addresses, strict=True)
            ]
            places = ray.get(asked, timeout=seconds("placement"))
        except (KeyError, ray.exceptions.RayError):
            yield []
            return
        yield [_Host(ray, actor, place) for actor, place in zip(actors, places, strict=True)]
    finally:
        for actor in actors:
            ray.kill(actor)
        remove_placement_group(group)


def _addresses(ray: Any, group: Any, count: int) -> list[str]:
    """The address of each bundle's node. Raises KeyError if a node has left."""
    from ray.util import placement_group_table

    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    where = placement_group_table(group)["bundles_to_node_id"]
    return [nodes[where[index]] for index in range(count)]
