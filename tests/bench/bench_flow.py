"""What the flow costs besides its work: its imports, a finished run again, Prefect's fraction.

python -m tests.bench.bench_flow [--rounds 5] [--finished RECIPE DATA STORE]

| part | what is measured | goal |
|---|---|---|
| imports | `import flows.train_sknet` as a multiple of `from prefect import flow, task` | 1.5 |
| again | the command on a finished store, minus the process of an empty flow | 3 s |
| fraction | the same, minus its tasks without Prefect, divided by a training of ten minutes | 1 % |

The last two are measured with a temporary server and with a running one. Each contestant is a fresh
process. They take turns, in reversed order every other round; differences and ratios are computed
within each round, and medians are printed with the smallest and the largest. Without `--finished`,
a tiny run is made first, which takes a minute. Prints Markdown tables; it checks no limits.
"""

import argparse
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import httpx

from tasks.programs import SECONDS_BETWEEN_UPDATES
from tests.processes import ROOT

GOALS = {"imports": 1.5, "again": 3.0, "fraction": 0.01}
TRAINING_SECONDS = 600.0
# No recipe's training logs more than a line each second; the progress bar moves less often.
LINES_IN_TRAINING = 600
STEPS_IN_TRAINING = round(TRAINING_SECONDS / SECONDS_BETWEEN_UPDATES)
START_SECONDS = 600  # of a server, on a machine that does other work
IMPORTS = {
    "prefect": "from prefect import flow, task",
    "flows.train_sknet": "import flows.train_sknet",
}
TIMED = "import time; a = {clocks}\n{work}\nb = {clocks}\nprint(*a, *b)"
CONTESTANTS = "tests.bench.flow_contestants"


def main(arguments: argparse.Namespace) -> None:
    """Measure the chosen parts."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, ", end="")
    print(f"Prefect {version('prefect')}, {os.cpu_count()} cores, ", end="")
    print(f"{arguments.rounds} rounds; load before {load}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "PREFECT_HOME": f"{folder}/prefect",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(START_SECONDS),
            "DO_NOT_TRACK": "1",
        }
        os.environ.pop("PREFECT_API_URL", None)
        if "imports" in arguments.parts:
            measure_imports(arguments.rounds)
        if "again" in arguments.parts:
            measure_again(finished(arguments, Path(folder)), arguments.rounds, Path(folder))


def measure_imports(rounds: int) -> None:
    """Measure both imports in fresh processes, without the start of the interpreter."""
    wall: dict[str, list[float]] = {name: [] for name in IMPORTS}
    cpu: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for number in range(rounds):
        for name in in_turn(list(IMPORTS), number):
            clocks = "time.perf_counter(), time.process_time()"
            said = run([sys.executable, "-c", TIMED.format(clocks=clocks, work=IMPORTS[name])])
            start, cpu_start, end, cpu_end = map(float, said.split())
            wall[name].append(end - start)
            cpu[name].append(cpu_end - cpu_start)
    print("\n| import of | s | CPU s |\n|---|---:|---:|")
    for name in IMPORTS:
        print(f"| {name} | {median(wall[name]):.2f} | {median(cpu[name]):.2f} |")
    ratios = {"": ratio(wall), ", by CPU time": ratio(cpu)}
    for how, values in ratios.items():
        print(f"imports{how}: {shown(values)} times Prefect's (goal {GOALS['imports']})")


def ratio(seconds: dict[str, list[float]]) -> list[float]:
    """Return our time divided by Prefect's in each round."""
    prefect, ours = seconds.values()
    return [mine / other for mine, other in zip(ours, prefect, strict=True)]


def finished(arguments: argparse.Namespace, folder: Path) -> tuple[str, str, str]:
    """Return recipe, data and store of a finished run: the given one, or a tiny new one."""
    if arguments.finished:
        recipe, data, store = map(str, arguments.finished)
    else:
        from tests.tiny_pipeline import write_images, write_recipe

        recipe = str(write_recipe(folder / "tiny.yaml"))
        data, store = str(write_images(folder / "images")), str(folder / "store")
    run(flow_command(recipe, data, store))
    return recipe, data, store


def flow_command(recipe: str, data: str, store: str) -> list[str]:
    """Return the command as a user types it."""
    options = ["--recipe", recipe, "--data", data, "--store", store, "--workers", "2"]
    return [sys.executable, "-m", "flows.train_sknet", *options]


def measure_again(done: tuple[str, str, str], rounds: int, folder: Path) -> None:
    """Measure an empty flow and a finished run, with a temporary and with a running server."""
    contestants = {
        "empty flow": [sys.executable, "-m", CONTESTANTS, "empty"],
        "finished run": flow_command(*done),
    }
    with running_server(folder) as api:
        environments = {"temporary": {}, "running": {"PREFECT_API_URL": api}}
        seconds = {server: {name: list[float]() for name in contestants} for server in environments}
        for environment in environments.values():  # the first start makes a database
            run(contestants["empty flow"], environment)
        for number in range(rounds):
            for server in in_turn(list(environments), number):
                for name in in_turn(list(contestants), number):
                    began = time.perf_counter()
                    run(contestants[name], environments[server])
                    seconds[server][name].append(time.perf_counter() - began)
        report = [sys.executable, "-m", CONTESTANTS, "reports", "200"]
        reports = figures(run(report, environments["running"]))
    alone = [sys.executable, "-m", CONTESTANTS, "tasks", *done, str(rounds)]
    tasks = figures(run(alone))["tasks"]
    print("\n| server | empty flow, s | finished run, s | beyond, s |\n|---|---:|---:|---:|")
    for server, measured in seconds.items():
        empty, whole = measured.values()
        beyond = [mine - other for mine, other in zip(whole, empty, strict=True)]
        print(f"| {server} | {median(empty):.2f} | {median(whole):.2f} | {shown(beyond)} |")
    print(f"again: goal {GOALS['again']} s beyond the empty flow")
    print_fraction(
        {server: measured["finished run"] for server, measured in seconds.items()}, tasks, reports
    )


def print_fraction(whole: dict[str, list[float]], tasks: float, reports: dict[str, float]) -> None:
    """Print what the flow's process and its reports to Prefect add to the tasks' own work."""
    reporting = LINES_IN_TRAINING * reports["line"] + STEPS_IN_TRAINING * reports["progress"]
    reporting /= 1000
    print(
        f"\ntasks without Prefect: {tasks:.3f} s; a line of the log {reports['line']:.2f} ms, ",
        end="",
    )
    print(
        f"a step of the bar {reports['progress']:.2f} ms, "
        f"{reporting:.2f} s for {LINES_IN_TRAINING} and {STEPS_IN_TRAINING}"
    )
    for server, seconds in whole.items():
        fixed = [value - tasks for value in seconds]
        fractions = [(value + reporting) / TRAINING_SECONDS for value in fixed]
        low, high = min(fractions), max(fractions)
        print(
            f"fraction, {server} server: {statistics.median(fractions):.2%} "
            f"({low:.2%}-{high:.2%}) of {TRAINING_SECONDS:.0f} s "
            f"(fixed {median(fixed):.2f} s; goal {GOALS['fraction']:.0%})"
        )


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """A Prefect server; the value is the address of its API."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    prefect = str(Path(sys.executable).with_name("prefect"))
    environment = {**os.environ, "PREFECT_HOME": str(folder / "server")}
    with (folder / "server.log").open("wb") as log:
        command = [prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    api = f"http://127.0.0.1:{port}/api"
    try:
        wait_for_health(api, server)
        yield api
    finally:
        server.terminate()
        server.wait(30)


def wait_for_health(api: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{api}/health", timeout=5).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit("Prefect's server did not start")


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Return the output of a fresh process; end the benchmark if it fails."""
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"{command}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return ended.stdout


def figures(said: str) -> dict[str, float]:
    """Parse a contestant's lines of the form `name value`."""
    pairs = [line.split() for line in said.splitlines()]
    return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2}


def in_turn(names: list[str], number: int) -> list[str]:
    """Return the names in the order of this round: forwards or backwards."""
    return names if number % 2 == 0 else names[::-1]


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def shown(values: list[float]) -> str:
    """Format the median with the range."""
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--rounds", type=int, default=5)
    result.add_argument("--finished", nargs=3, metavar=("RECIPE", "DATA", "STORE"))
    result.add_argument(
        "--parts", nargs="+", choices=("imports", "again"), default=["imports", "again"]
    )
    return result


if __name__ == "__main__":
    main(parser().parse_args())
