"""Let this host leave its Ray cluster in time, without a step of its trainings being lost.

    python -m infra.launch.leave [--deadline SECONDS]

This is for whatever tells a host to go before it goes: a pod's preStop hook, a unit's ExecStop, the
notice of a spot instance, the end of a batch job's time. Ray starts nothing new on the host from
then on, the ranks of its trainings save after their current step and stop (`infra.launch.gang`),
and the trainings go on with the hosts that are left. Ray ends on the host when nothing runs there
any more.

Exit codes: 0 if Ray has ended on the host, 1 if it has not at the deadline, 2 if the host is not
part of a cluster, or is its head, which can't leave.
"""

import argparse
import sys
import time
from importlib import import_module
from types import ModuleType
from typing import Any

from infra.base.interrupts import run_interruptible
from infra.base.options import positive_int
from infra.base.outcomes import ExitCode
from infra.launch.cluster import CONNECT_SECONDS, ClusterError
from infra.launch.environment import is_foreign_address, seconds

POLL_SECONDS = 0.5
REASON = "DRAIN_NODE_REASON_PREEMPTION"
DEAD = 1  # GcsNodeInfo.GcsNodeState


def leave(deadline: float) -> bool:
    """Tell the cluster that this host leaves, and wait until nothing of it runs here.

    Args:
        deadline: Seconds until this host is ended by others.

    Returns:
        Whether Ray has ended on this host within these seconds.

    Raises:
        ClusterError: This host is not part of a cluster, or is its head.
    """
    until = time.time() + deadline
    ray = _import_ray()
    try:
        address = import_module("ray._private.services").canonicalize_bootstrap_address_or_die(None)
        client = ray._raylet.GcsClient(address=address)
        nodes = _nodes_here(client)
    except (OSError, ValueError, ray.exceptions.RpcError) as error:
        raise ClusterError(f"no Ray cluster: {' '.join(str(error).split())}") from None
    if not nodes:
        raise ClusterError("no Ray runs on this host")
    if any(node.is_head_node for node in nodes.values()):
        raise ClusterError("this host is the head of its Ray cluster, which can't go on without it")
    reason = import_module("ray.core.generated.autoscaler_pb2").DrainNodeReason.Value(REASON)
    try:
        for node_id in nodes:
            client.drain_node(node_id.hex(), reason, "the host has to leave", int(until * 1000))
        while _nodes_here(client):
            if time.time() > until:
                return False
            time.sleep(POLL_SECONDS)
    except ray.exceptions.RpcError:
        pass  # the cluster itself has ended, and with it what ran here
    return True


def _import_ray() -> ModuleType:
    try:
        return import_module("ray")
    except ImportError:
        raise ClusterError("work on a cluster needs Ray: pip install 'sknet[cluster]'") from None


def _nodes_here(client: Any) -> dict[Any, Any]:
    """Return id → living node of Ray on this host; there is one, except in tests.

    Raises:
        ray.exceptions.RpcError: The head can't be reached.
    """
    nodes = client.get_all_node_info(timeout=CONNECT_SECONDS)
    return {
        node_id: node
        for node_id, node in nodes.items()
        if node.state != DEAD and not is_foreign_address(node.node_manager_address)
    }


def main() -> int:
    """Let this host leave, as the command line says, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.launch.leave", allow_abbrev=False)
    parser.add_argument(
        "--deadline",
        type=positive_int,
        default=int(seconds("stop_grace")) + 15,
        metavar="SECONDS",
        help="seconds until the host is ended by others (default: %(default)g)",
    )
    deadline = parser.parse_args().deadline
    try:
        if leave(deadline):
            return ExitCode.DONE
        message, code = f"Ray still runs here after {deadline:g} s", ExitCode.FAILED
    except ClusterError as error:
        message, code = str(error), ExitCode.USER_ERROR
    sys.stderr.write(f"error: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(run_interruptible(main))
