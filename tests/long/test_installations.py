"""Each shipped installation, run on this machine as far as it can: the pages' commands, in order.

There is no container engine, no systemd and no cluster here, so what they would start is started as
processes, with the commands and environments of compose.yaml, the units and the manifests
(tests/installations.py). The walk through compose trains; the others find its checkpoint.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra.artifacts import open_store
from infra.s3.server import free_ports
from tests.installations import (
    HOME,
    PROGRAMS,
    Places,
    Program,
    base_environment,
    blocks,
    compose_program,
    compose_services,
    container_environment,
    made_secret,
    manifests,
    read_environment,
    unit_program,
)
from tests.postgresql import running_database
from tests.prefect_services import PAUSE, free_port
from tests.processes import ROOT, Service
from tests.system_programs import require
from tests.waiting import wait_for

pytestmark = pytest.mark.long

TEMPORARY = "/tmp/prefect"  # noqa: S108 (a container's own)
TRAIN, NIGHTLY = "train-sknet/train-sknet", "revalidate/nightly"


def ports() -> dict[int, int]:
    """Return a free port for each of those that the installations use."""
    return {4200: free_port(), 8080: free_port(), 8333: free_ports()}


def run_commands(lines: list[str], environment: dict[str, str], directory: Path) -> str:
    """Run lines of a page in one shell, which ends with the first that fails."""
    script = "\n".join(["set -e", *lines])
    ended = Program(["bash", "-c", script], environment, directory).run()
    assert ended.returncode == 0, f"{script}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


def succeeds(checked: Program) -> bool:
    return checked.run().returncode == 0


def wait_until_healthy(service: Service, port: int, path: str) -> None:
    def answers() -> bool:
        assert service.is_alive, service.log_tail()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/{path}", timeout=5).is_success
        except httpx.TransportError:
            return False

    wait_for(answers, service.log_tail, pause=PAUSE)


def check_pages(server: Program, port: int) -> None:
    """Check that the server serves its pages, from a directory that it may write."""
    copied = Path(server.environment["PREFECT_SERVER_UI_STATIC_DIRECTORY"], "v2/index.html")
    page = httpx.get(f"http://127.0.0.1:{port}/v2/dashboard", headers={"Accept": "text/html"})
    assert page.raise_for_status().text == copied.read_text("utf-8")


@dataclass(frozen=True)
class Compose:
    """The running services of compose.yaml, after the commands of its page."""

    places: Places
    worker: Program
    outputs: dict[str, str]
    """What each command printed."""

    @property
    def s3(self) -> dict[str, str]:
        """The AWS settings of the worker."""
        given = self.worker.environment
        return {name: value for name, value in given.items() if name.startswith("AWS_")}

    def push_checkpoint(self, store: str) -> None:
        """Copy production's checkpoint, and what it was made from, to another store."""
        source = self.worker.environment["SKNET_STORE"]
        words = ["push", "production", "--with-inputs", "--store", source, "--to", store]
        ended = self.worker.in_its_place("python", "-m", "infra.artifacts", *words).run()
        assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The commands of infra/docker's page, with processes for its containers."""
    directory = tmp_path_factory.mktemp("compose")
    secrets = directory / "secrets"
    commands, _ = blocks("infra/docker/README.md")
    make_secrets, export, up, *executed = commands
    assert [make_secrets.split()[0], export.split()[0], up.split()[:3]] == [
        "infra/docker/make-secrets.sh",
        "export",
        ["docker", "compose", "up"],
    ]
    subprocess.run([ROOT / make_secrets, secrets], check=True, capture_output=True)
    own = ports()
    places: dict[str, Places] = {}
    for name, service in compose_services().items():
        home = directory / name
        for volume in service["volumes"]:
            inside = Path(volume.split(":")[1])
            if inside.is_relative_to(HOME):
                (home / inside.relative_to(HOME)).mkdir(parents=True)
        here = {HOME: home, TEMPORARY: home / "temporary", "/srv/sknet": ROOT}
        places[name] = Places(here, own, tuple(compose_services()))
    with ExitStack() as stack:
        password = read_environment(secrets / "postgres.env")["POSTGRES_PASSWORD"]
        database = stack.enter_context(running_database(password))
        # Ports that the containers would have by default, and publish elsewhere.
        published = {
            "server": {
                "PREFECT_SERVER_API_PORT": str(own[4200]),
                "PREFECT_SERVER_DATABASE_PORT": str(database.port),
            },
            "worker": {"PREFECT_WORKER_WEBSERVER_PORT": str(own[8080])},
            "s3": {},
        }
        programs = {}
        for name in ("s3", "server", "worker"):
            read = compose_program(name, secrets, places[name])
            command = [*read.command, *([f"--port={own[8333]}"] if name == "s3" else [])]
            environment = {**read.environment, **published[name]}
            programs[name] = Program(command, environment)
            running = stack.enter_context(programs[name].service(directory / f"{name}.log"))
            check = compose_services()[name]["healthcheck"]["test"][1:]
            words = [replace(places[name], hosts=()).here(word) for word in check]
            wait_for(partial(succeeds, programs[name].in_its_place(*words)), running.log_tail)
        check_pages(programs["server"], own[4200])
        outputs = {}
        for line in executed:
            words = line.removeprefix("docker compose exec worker ").split()
            assert len(words) < len(line.split()), line
            ended = programs["worker"].in_its_place(*words).run()
            log = (directory / "worker.log").read_text("utf-8")[-5000:]
            assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}\n{log}"
            outputs[line] = ended.stdout
        yield Compose(places["worker"], programs["worker"], outputs)


def test_compose_registers_trains_and_revalidates_in_the_store_of_its_worker(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered, *run = compose.outputs.values()
    for name in ("sknet-process", TRAIN, NIGHTLY):
        assert name in registered
    assert len(run) == 2
    for name, value in compose.s3.items():
        monkeypatch.setenv(name, value)
    store = open_store(compose.worker.environment["SKNET_STORE"], create=False)
    production = store.refs.get("production")
    assert production is not None
    assert [each.kind for each in store.list("revalidation")] == ["revalidation"]


def test_the_hosts_own_commands_work_with_the_published_ports(compose: Compose) -> None:
    _, commands = blocks("infra/docker/README.md")
    here = compose.places
    secrets = {"infra/docker/secrets": here.directories[HOME].parent / "secrets"}
    own = Places(secrets, here.ports)
    environment = base_environment(here.directories[HOME].parent / "operator")
    listed = run_commands([own.here(line) for line in commands], environment, ROOT)
    assert TRAIN.split("/")[0] in listed
    assert "checkpoint/" in listed


def test_of_the_s3_server_other_hosts_can_reach_nothing_without_credentials(
    compose: Compose,
) -> None:
    """The service listens on all addresses of its container; its parts don't."""
    port = compose.places.ports[8333]
    (weed,) = [
        each
        for each in psutil.process_iter(["name", "cmdline"])
        if each.info["name"] == "weed" and f"-s3.port={port}" in each.info["cmdline"]
    ]
    listening = [each.laddr for each in weed.net_connections("tcp") if each.status == "LISTEN"]
    everywhere = {each.port for each in listening if not each.ip.startswith("127.")}
    # S3, which checks signatures, and its gRPC, which wants a certificate.
    assert everywhere == {port, port + 10000}
    assert httpx.get(f"http://127.0.0.1:{port}/artifacts").status_code == httpx.codes.FORBIDDEN


NOT_HERE = ("useradd", "usermod", "python3 -m venv", "/opt/sknet/bin/pip", "systemctl")
"""Commands that would change this machine's users, programs or services."""


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """The files that the page's commands install, below another root."""
    root = tmp_path_factory.mktemp("systemd")
    named = ("/etc/sknet", "/etc/systemd/system", "/var/lib/sknet")
    here = {name: root / name[1:] for name in named}
    for path in here.values():
        path.mkdir(parents=True)
    here |= {"/srv/sknet": ROOT, "/opt/sknet/bin": PROGRAMS}
    result = Places(here, {4200: free_port(), 6379: free_port()})
    install, _, _, cluster, _ = blocks("infra/systemd/README.md")
    lines = [result.here(line) for line in (*install, *cluster) if not line.startswith(NOT_HERE)]
    run_commands(lines, base_environment(root / "root"), ROOT)
    return result


def installed(places: Places, unit: str) -> Path:
    return places.directories["/etc/systemd/system"] / f"{unit}.service"


def test_systemd_registers_trains_and_revalidates_in_the_store_of_its_worker(
    compose: Compose, units: Places, tmp_path: Path
) -> None:
    etc = units.directories["/etc/sknet"]
    for secret in ("server.env", "client.env", "ray.env"):
        assert (etc / secret).stat().st_mode & 0o077 == 0
    server = unit_program(installed(units, "sknet-prefect-server"), units)
    worker = unit_program(installed(units, "sknet-prefect-worker"), units)
    store = worker.environment["SKNET_STORE"]
    assert store.startswith(str(units.directories["/var/lib/sknet"]))
    compose.push_checkpoint(store)
    register = blocks("infra/systemd/README.md")[1]
    lines = [units.here(line) for line in register]
    with (
        server.service(tmp_path / "server.log") as running,
        worker.service(tmp_path / "worker.log") as working,
    ):
        wait_until_healthy(running, units.ports[4200], "api/health")
        check_pages(server, units.ports[4200])
        # The worker waits for the pool.
        wait_for(lambda: "not found" in working.log_tail(), working.log_tail, pause=PAUSE)
        run_commands(lines, base_environment(tmp_path / "root"), ROOT)
    found = open_store(store, create=False)
    assert found.refs.get("production") is not None
    assert len(list(found.list("revalidation"))) == 1


def test_a_host_with_devices_joins_the_head_that_refuses_clients_without_the_token(
    units: Places, tmp_path: Path
) -> None:
    port = units.ports[6379]
    environment = units.directories["/etc/sknet"] / "ray.env"
    environment.write_text(environment.read_text().replace("10.20.10.1", "127.0.0.1"))
    head = unit_program(installed(units, "sknet-ray-head"), units)
    host = unit_program(installed(units, "sknet-ray-host"), units)
    # This machine has no devices, so the doctor doesn't let the host join.
    checked = unit_program(
        installed(units, "sknet-ray-host"), units, directive="ExecStartPre"
    ).run()
    assert checked.returncode == 1
    assert "npu-smi" in checked.stdout
    count = (
        f"import ray; ray.init('127.0.0.1:{port}', log_to_driver=False); "
        "print(ray.cluster_resources().get('NPU'))"
    )
    asked = head.in_its_place("python", "-c", count)
    stranger = Program(asked.command, base_environment(tmp_path / "stranger"))
    with head.service(tmp_path / "head.log") as running:
        wait_for(lambda: asked.run().stdout.strip() == "None", running.log_tail, pause=1)
        with host.service(tmp_path / "host.log") as joined:
            wait_for(lambda: asked.run().stdout.strip() == "8.0", joined.log_tail, pause=1)
        refused = stranger.run()
        assert refused.returncode != 0
        assert "InvalidAuthToken" in refused.stdout + refused.stderr


def test_kubernetes_registers_trains_and_revalidates_in_the_store_of_its_secret(
    compose: Compose, tmp_path: Path
) -> None:
    """Each run is executed as its job's pod would, with the environment of the pool's template."""
    require("kubectl")
    commands, _ = blocks("infra/kubernetes/README.md")
    login = "operator:secret"
    with running_database() as database, ExitStack() as stack:
        filled_in = {
            "USER:PASSWORD@HOST/": f"prefect:{database.password}@127.0.0.1:{database.port}/",
            "USER:PASSWORD": login,
            "s3://BUCKET/": "s3://artifacts/kubernetes/",
            "KEY ": f"{compose.s3['AWS_ACCESS_KEY_ID']} ",
            "SECRET ": f"{compose.s3['AWS_SECRET_ACCESS_KEY']} ",
            "REGION": compose.s3["AWS_DEFAULT_REGION"],
        }
        port = free_port()
        places = Places({"/prefect": tmp_path / "prefect", "/srv/sknet": ROOT}, {4200: port})
        for name, value in filled_in.items():
            commands = [line.replace(name, value) for line in commands]
        sources = dict(made_secret(each) for each in commands if "create secret" in each)
        (settings,) = [each for each in manifests() if each["kind"] == "ConfigMap"]
        sources[settings["metadata"]["name"]] = settings["data"]
        # As for any other service than AWS; this one is compose's.
        sources["sknet-store"] |= {"AWS_ENDPOINT_URL_S3": compose.s3["AWS_ENDPOINT_URL_S3"]}

        server = deployed("prefect-server", sources, places, tmp_path)
        assert {"PREFECT_HOME": str(tmp_path / "prefect")}.items() <= server.environment.items()
        running = stack.enter_context(server.service(tmp_path / "server.log"))
        wait_until_healthy(running, port, "api/ready")
        check_pages(server, port)

        compose.push_checkpoint(sources["sknet-store"]["SKNET_STORE"])
        (export,) = [each for each in commands if each.startswith("export ")]
        operator = base_environment(tmp_path / "operator")
        for line in commands[commands.index(export) + 1 :]:
            shell = [places.here(export), places.here(line)]
            script = Program(["bash", "-c", "; ".join(shell)], operator, ROOT / "infra/kubernetes")
            if "deployment run" not in line:
                ended = script.run()
                assert ended.returncode == 0, ended.stdout + ended.stderr
                continue
            watching = stack.enter_context(script.service(tmp_path / "watch.log"))
            execute_as_job(port, login, sources, places, tmp_path)
            assert watching.process.wait() == 0, watching.log_tail()


def deployed(name: str, sources: dict[str, dict[str, str]], places: Places, home: Path) -> Program:
    """Return what a deployment's container runs."""
    (deployment,) = [
        each
        for each in manifests()
        if each["kind"] == "Deployment" and each["metadata"]["name"] == name
    ]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given = container_environment(container, sources)
    environment = base_environment(home / name)
    environment |= {key: places.here(value) for key, value in given.items()}
    return Program([*container["command"], "--port", str(places.ports[4200])], environment)


def execute_as_job(
    port: int, login: str, sources: dict[str, dict[str, str]], places: Places, home: Path
) -> None:
    """Execute the next run of the pool, as Kubernetes' worker and its job do."""
    user, _, password = login.partition(":")
    api, auth = f"http://127.0.0.1:{port}/api", (user, password)
    pool = f"{api}/work_pools/sknet-volcano"

    def scheduled() -> list[Any]:
        due = {"scheduled_before": datetime.now(UTC).isoformat()}  # not tomorrow's nightly
        found = httpx.post(f"{pool}/get_scheduled_flow_runs", json=due, auth=auth, timeout=60)
        return list(found.raise_for_status().json())

    wait_for(scheduled, pause=PAUSE)
    (run,) = [each["flow_run"] for each in scheduled()]
    template = httpx.get(pool, auth=auth, timeout=60).raise_for_status().json()
    job = template["base_job_template"]
    pod = job["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = base_environment(home / "flow")
    environment |= {"SKNET_HOME": str(ROOT)}  # the image's
    environment |= container_environment({"envFrom": container["envFrom"]}, sources)
    environment |= job["variables"]["properties"]["env"]["default"]
    environment |= {"SKNET_CACHE": str(home / "cache")}
    environment |= {"PREFECT_API_URL": api, "PREFECT__FLOW_RUN_ID": run["id"]}
    ended = Program(["prefect", "flow-run", "execute", run["id"]], environment).run()
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-5000:]
