"""Images, manifests, units and scripts, checked with the schemas and linters of their readers."""

import copy
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from tests.installations import compose_services, read_unit
from tests.processes import ROOT
from tests.system_programs import require

INFRA = ROOT / "infra"
COMPOSE = INFRA / "docker/compose.yaml"
CONTAINERS = sorted((INFRA / "docker").glob("Dockerfile.*"))
MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))
POOLS = [INFRA / "prefect/process-pool.json", INFRA / "prefect/volcano-pool.json"]
UNITS = sorted((INFRA / "systemd").glob("*.service"))


def program(name: str) -> str:
    """Return the path of a program of the virtual environment."""
    return str(Path(sys.executable).with_name(name))


def documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text("utf-8")):
            yield path, document


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for _, document in documents() if document["kind"] == kind]


def settings() -> dict[str, str]:
    lines = (INFRA / "prefect/settings.env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def pod_templates() -> list[dict[str, Any]]:
    """Return the pod templates of the manifests, the Ray cluster and the work pool."""
    (cluster,) = of_kind("RayCluster")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    job = accepted_by_kubernetes(filled(POOLS[1])["job_manifest"])
    return [
        *(each["spec"]["template"] for each in of_kind("Deployment")),
        *(each["template"] for each in groups),
        job["spec"]["template"],
    ]


def filled(pool: Path, **values: Any) -> Any:
    """Return a work pool's job as a worker would create it."""
    from prefect.utilities.templating import apply_values

    template = json.loads(pool.read_text("utf-8"))
    properties = template["variables"]["properties"]
    defaults = {name: each["default"] for name, each in properties.items() if "default" in each}
    given = {"name": "run", "labels": {"a": "b"}, "env": [{"name": "A", "value": "b"}]}
    # The form of command and environment is that of Prefect's Kubernetes worker.
    given["command"] = ["python", "-m", "prefect.engine"]
    return apply_values(template["job_configuration"], {**defaults, **given, **values})


def accepted_by_kubernetes(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job without the fields that Prefect's worker demands and Kubernetes ignores.

    The worker (prefect-kubernetes 0.8.0) refuses a job whose pod has no `completions` and
    `parallelism`. They are fields of jobs, not of pods.
    """
    result = copy.deepcopy(job)
    pod = result["spec"]["template"]["spec"]
    assert [pod.pop("completions"), pod.pop("parallelism")] == [1, 1]
    assert [each["name"] for each in pod["containers"]] == ["prefect-job"]
    return result


# Docker


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.suffix[1:])
def test_hadolint_finds_nothing(path: Path) -> None:
    checked = subprocess.run([program("hadolint"), path], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.suffix[1:])
def test_an_image_runs_without_root_and_installs_pinned_versions(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "10001:10001"
    installs = re.findall(r"pip install .*", text)
    assert all("--constraint constraints.txt" in each or "--no-deps" in each for each in installs)
    bases = re.findall(r"^(?:FROM|ARG CANN=)\s*(\S+:\S+)", text, re.MULTILINE)
    assert bases
    assert not any(base.endswith(":latest") for base in bases)


def test_the_build_context_contains_what_an_image_copies_and_no_secrets() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    for path in CONTAINERS:
        for words in re.findall(r"^COPY (?!--from)(.*)$", path.read_text("utf-8"), re.MULTILINE):
            assert set(words.split()) - {".", "./"} <= allowed
    assert all((ROOT / name).exists() for name in allowed)
    # The secrets are inside a directory that the context includes.
    assert ignored.index("infra/docker/secrets") > ignored.index("!infra")


def test_the_compose_file_follows_the_specification() -> None:
    compose = PyCompose.from_yaml(resolved_compose())
    assert set(compose.service_names()) == {"database", "server", "worker", "s3"}


def resolved_compose() -> str:
    """Return the compose file with YAML's merge keys resolved, as Docker reads it."""
    return yaml.safe_dump(yaml.safe_load(COMPOSE.read_text("utf-8")), sort_keys=False)


def test_services_of_compose_are_on_loopback_and_have_few_permissions() -> None:
    services = compose_services()
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert service["healthcheck"]["test"][0] == "CMD", name
        for file in service["env_file"]:
            path = COMPOSE.parent / file
            assert path.exists() or path.parent.name == "secrets", name
    assert "ports" not in services["database"]
    assert services["database"]["networks"] == ["inside"]


def test_secrets_are_made_once_and_for_their_owner_only_and_match_the_compose_file(
    tmp_path: Path,
) -> None:
    script = INFRA / "docker/make-secrets.sh"
    subprocess.run([script, tmp_path / "secrets"], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    subprocess.run([script, tmp_path / "secrets"], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
    for path in (tmp_path / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700

    services = compose_services()
    wanted = {Path(file).name for each in services.values() for file in each["env_file"]}
    assert wanted - {"settings.env"} == made.keys() - {"made"}
    values = dict(line.split("=", 1) for text in made.values() for line in text.split())
    assert values["POSTGRES_PASSWORD"] == values["PREFECT_SERVER_DATABASE_PASSWORD"]
    assert values["PREFECT_API_AUTH_STRING"] == values["PREFECT_SERVER_API_AUTH_STRING"]
    assert all(len(value) >= 20 for value in values.values())
    assert re.search(r"^/infra/docker/secrets/$", (ROOT / ".gitignore").read_text(), re.MULTILINE)


# Kubernetes


@pytest.mark.parametrize(
    ("path", "document"),
    [(path, each) for path, each in documents() if each["kind"] != "RayCluster"],
    ids=lambda value: value["kind"] if isinstance(value, dict) else value.stem,
)
def test_a_manifest_is_valid_for_kubernetes(path: Path, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.30", strict=True)


@pytest.mark.parametrize(
    "template", pod_templates(), ids=lambda each: each["spec"]["containers"][0]["name"]
)
def test_every_pod_is_valid_and_meets_the_restricted_standard(template: dict[str, Any]) -> None:
    """Kubernetes' schemas don't cover KubeRay's fields, but they cover its pods."""
    metadata = {"name": "pod", **template.get("metadata", {})}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    kubernetes_validate.validate(pod, "1.30", strict=True)
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any("hostPath" in volume for volume in spec.get("volumes", []))
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert not container["image"].endswith(":latest")


def test_every_service_has_probes() -> None:
    services = [each for each in pod_templates() if each["spec"].get("restartPolicy") != "Never"]
    assert len(services) == 4
    for template in services:
        (container,) = template["spec"]["containers"]
        assert {"livenessProbe", "readinessProbe"} <= container.keys()


def test_the_ray_cluster_has_the_resources_that_the_launcher_reserves() -> None:
    (cluster,) = of_kind("RayCluster")
    assert cluster["apiVersion"] == "ray.io/v1"
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cluster["spec"]["rayVersion"] == pinned[1]
    (hosts,) = cluster["spec"]["workerGroupSpecs"]
    # KubeRay puts the value into a shell command, with its quotes.
    resources = json.loads(json.loads(hosts["rayStartParams"]["resources"]))
    (container,) = hosts["template"]["spec"]["containers"]
    devices = container["resources"]["limits"]["huawei.com/Ascend910"]
    assert resources == {"NPU": int(devices)}
    assert container["resources"]["requests"]["huawei.com/Ascend910"] == devices


def test_the_worker_watches_its_roles_namespace_and_writes_no_login_into_jobs() -> None:
    (role,) = of_kind("Role")
    env = {each["name"]: each["value"] for each in container_of("prefect-worker")["env"]}
    prefix = "PREFECT_INTEGRATIONS_KUBERNETES"
    assert env[f"{prefix}_OBSERVER_NAMESPACES"] == role["metadata"]["namespace"]
    secret = env[f"{prefix}_WORKER_API_AUTH_STRING_SECRET_NAME"]
    key = env[f"{prefix}_WORKER_API_AUTH_STRING_SECRET_KEY"]
    readme = (INFRA / "kubernetes/README.md").read_text("utf-8")
    assert f"secret generic {secret} --from-literal={key}=" in readme


def container_of(deployment: str) -> dict[str, Any]:
    """Return the container of a deployment."""
    (found,) = [each for each in of_kind("Deployment") if each["metadata"]["name"] == deployment]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_names_that_manifests_refer_to_exist() -> None:
    (config,) = of_kind("ConfigMap")
    assert config["data"] == settings()
    claims = {each["metadata"]["name"] for each in of_kind("PersistentVolumeClaim")}
    secrets = set()
    for template in pod_templates():
        for volume in template["spec"].get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        for source in template["spec"]["containers"][0]["envFrom"]:
            if "configMapRef" in source:
                assert source["configMapRef"]["name"] == config["metadata"]["name"]
            else:
                secrets.add(source["secretRef"]["name"])
    readme = (INFRA / "kubernetes/README.md").read_text("utf-8")
    assert all(f"create secret generic {name}" in readme for name in secrets)


# All installations


def test_each_worker_waits_for_its_pool_and_knows_the_store_of_all_deployments() -> None:
    """tests/long/test_installations.py runs them."""
    worker = compose_services()["worker"]
    unit = read_unit(INFRA / "systemd/sknet-prefect-worker.service")
    commands = [
        worker["command"],
        shlex.split(unit["ExecStart"][0]),
        container_of("prefect-worker")["command"],
    ]
    for command in commands:
        assert "--no-create-pool-if-not-found" in command
    assert worker["environment"]["SKNET_STORE"].startswith("s3://artifacts/")
    # Where only the unit's own user may write by default.
    assert "SKNET_STORE=/var/lib/sknet/artifacts" in " ".join(unit["Environment"])
    readme = (INFRA / "kubernetes/README.md").read_text("utf-8")
    (store,) = [line for line in readme.splitlines() if "secret generic sknet-store" in line]
    assert "--from-literal=SKNET_STORE=" in store


def test_what_a_server_writes_beside_its_database_outlives_it() -> None:
    """The leases of concurrency limits, below PREFECT_HOME, and the pages that it serves.

    By default it copies the pages into its package. All three servers must not write there: they
    would answer 404.
    """
    pages = "PREFECT_SERVER_UI_STATIC_DIRECTORY"
    server = compose_services()["server"]
    home = server["environment"]["PREFECT_HOME"]
    assert f"prefect:{home}" in server["volumes"]
    assert server["environment"][pages] == f"{home}/pages"
    unit = read_unit(INFRA / "systemd/sknet-prefect-server.service")
    assert unit["StateDirectory"] == ["sknet"]
    home = "/var/lib/sknet/prefect"
    assert {f"PREFECT_HOME={home}", f"{pages}={home}/pages"} <= set(unit["Environment"])
    container = container_of("prefect-server")
    env = {each["name"]: each["value"] for each in container["env"]}
    home = env["PREFECT_HOME"]
    assert env[pages] == f"{home}/pages"
    (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == home]
    (deployment,) = [
        each for each in of_kind("Deployment") if each["metadata"]["name"] == "prefect-server"
    ]
    volumes = {each["name"]: each for each in deployment["spec"]["template"]["spec"]["volumes"]}
    assert "persistentVolumeClaim" in volumes[mount["name"]]


# Work pools, settings, units, scripts


@pytest.mark.parametrize("path", POOLS, ids=lambda path: path.stem)
def test_a_work_pool_has_a_valid_schema_and_uses_each_variable(path: Path) -> None:
    template = json.loads(path.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(template["variables"])
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    # Prefect merges the variable `env` into the template's own environment.
    assert used | {"env"} == template["variables"]["properties"].keys()


@pytest.mark.parametrize("devices", ["8", 8])  # `--job-variable devices=8` is a number
def test_volcano_gets_a_valid_job_with_the_requested_devices(devices: object) -> None:
    job = accepted_by_kubernetes(filled(POOLS[1], devices=devices, queue="night")["job_manifest"])
    kubernetes_validate.validate(job, "1.30", strict=True)
    template = job["spec"]["template"]
    assert template["spec"]["schedulerName"] == "volcano"
    assert template["metadata"]["annotations"] == {"scheduling.volcano.sh/queue-name": "night"}
    (container,) = template["spec"]["containers"]
    assert container["resources"]["limits"]["huawei.com/Ascend910"] == devices


def test_a_process_pool_lets_a_run_see_only_its_devices() -> None:
    assert filled(POOLS[0], devices="4,5")["env"]["ASCEND_RT_VISIBLE_DEVICES"] == "4,5"
    assert "ASCEND_RT_VISIBLE_DEVICES" not in filled(POOLS[0])["env"]


def test_prefect_knows_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import Settings

    for name, value in settings().items():
        monkeypatch.setenv(name, value)
    read = Settings()
    assert read.server.analytics_enabled is False
    assert read.cloud.enable_orchestration_telemetry is False
    assert read.flows.heartbeat_frequency == 30
    assert read.plugins.enabled is False


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """The units are verified with an existing program in place of those in /opt/sknet."""
    require("systemd-analyze")
    existing = tmp_path / "program"
    existing.write_text("#!/bin/sh\n")
    existing.chmod(0o755)
    for unit in UNITS:
        text = re.sub(r"/opt/sknet/bin/\w+", str(existing), unit.read_text("utf-8"))
        (tmp_path / unit.name).write_text(text)
    units = [str(tmp_path / unit.name) for unit in UNITS]
    command = ["systemd-analyze", "verify", "--man=no", "--generators=no", *units]
    checked = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    )
    ours = [line for line in checked.stderr.splitlines() if "sknet-" in line]
    assert (checked.returncode, ours) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_gains_no_privileges_and_has_the_common_settings(unit: Path) -> None:
    text = unit.read_text("utf-8")
    assert "User=sknet\n" in text
    assert "NoNewPrivileges=yes\n" in text
    assert "EnvironmentFile=/etc/sknet/settings.env\n" in text


def test_shellcheck_finds_nothing() -> None:
    directories = (ROOT / ".ci", ROOT / "infra", ROOT / "tests")
    files = (path for each in directories for path in each.rglob("*") if path.is_file())
    shells = re.compile(rb"#!.*\b(?:ba)?sh\b")
    scripts = [path for path in files if shells.match(path.read_bytes()[:40])]
    names = {str(path.relative_to(ROOT)) for path in scripts}
    assert {".ci/run", "infra/docker/make-secrets.sh", "tests/install_programs.sh"} <= names
    checked = subprocess.run([program("shellcheck"), *scripts], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")
