"""What the shipped installations run, read from their files: compose, systemd, Kubernetes.

Nothing here is written down a second time. Commands, environments and settings come from
compose.yaml, the units, the manifests and the pages; only the places differ: directories, ports and
host names of this machine stand for those of the installation.
"""

import base64
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tests.processes import ROOT, Service

PROGRAMS = Path(sys.executable).parent
HOME = "/home/sknet"


@dataclass(frozen=True)
class Places:
    """Where an installation's directories, ports and hosts are on this machine."""

    directories: Mapping[str, Path]
    ports: Mapping[int, int] = field(default_factory=dict)
    hosts: Sequence[str] = ()
    """Names that stand for loopback."""

    def here(self, text: str) -> str:
        """Return a word, a value or a line of the installation as it has to be on this machine."""
        for name in self.hosts:
            text = re.sub(rf"(?<=//){name}(?=:)|^{name}$", "127.0.0.1", text)
        for port, own in self.ports.items():
            text = re.sub(rf"(?<![\d.]){port}(?!\d)", str(own), text)
        known = sorted(self.directories, key=len, reverse=True)
        # A whole path: neither the database in a URL's path, nor a directory whose name goes on.
        path = re.compile(rf"(?<![\w/])({'|'.join(map(re.escape, known))})(?![\w-])")
        return path.sub(lambda found: str(self.directories[found[0]]), text)


@dataclass(frozen=True)
class Program:
    """A command with its whole environment: it inherits nothing of this process."""

    command: Sequence[str]
    environment: Mapping[str, str]
    directory: Path = ROOT

    def words(self) -> list[str]:
        pairs = [f"{name}={value}" for name, value in self.environment.items()]
        return ["env", "--ignore-environment", f"--chdir={self.directory}", *pairs, *self.command]

    def service(self, log: Path) -> Service:
        return Service(self.words(), log, {})

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words(), capture_output=True, text=True, check=False)

    def in_its_place(self, *command: str) -> "Program":
        """Return another command in the same environment, as `docker compose exec` starts it."""
        return Program(command, self.environment, self.directory)


def read_environment(path: Path) -> dict[str, str]:
    """Read a file of `NAME=VALUE` lines, as systemd and Docker do."""
    lines = path.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def blocks(page: str) -> list[list[str]]:
    """Return the lines of each block of commands on a page."""
    text = (ROOT / page).read_text("utf-8")
    found = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in found]


def base_environment(home: Path) -> dict[str, str]:
    """Return what every process has: programs and a home, and no setting of this machine."""
    home.mkdir(parents=True, exist_ok=True)
    path = f"{PROGRAMS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8"}


# compose


def compose_services() -> dict[str, Any]:
    services = yaml.safe_load((ROOT / "infra/docker/compose.yaml").read_text("utf-8"))["services"]
    return dict(services)


def compose_program(name: str, secrets: Path, places: Places) -> Program:
    """Return a service's command, with the environment of its image, its files and itself."""
    service = compose_services()[name]
    given = image_environment()
    for file in service["env_file"]:
        path = ROOT / "infra/docker" / file
        given |= read_environment(secrets / path.name if path.parent.name == "secrets" else path)
    given |= {key: str(value) for key, value in service.get("environment", {}).items()}
    environment = base_environment(places.directories[HOME])
    environment |= {key: places.here(value) for key, value in given.items()}
    # A word of a command is no host, as in `prefect server start`.
    command = [replace(places, hosts=()).here(word) for word in service["command"]]
    return Program(command, environment)


def image_environment() -> dict[str, str]:
    """Return the variables of Dockerfile.cpu, except for the paths of its programs."""
    text = (ROOT / "infra/docker/Dockerfile.cpu").read_text("utf-8").replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    (words,) = re.findall(r"^ENV (.*)$", last, re.MULTILINE)
    pairs = dict(word.split("=", 1) for word in words.split())
    return {name: value for name, value in pairs.items() if name != "PATH"}


# systemd


def unit_program(unit: Path, places: Places, *, directive: str = "ExecStart") -> Program:
    """Return what a unit executes, with the environment that it gives."""
    settings = read_unit(unit)
    environment = base_environment(places.directories["/var/lib/sknet"])
    for line in settings.get("Environment", []):
        pairs = (word.split("=", 1) for word in shlex.split(line))
        environment |= {name: places.here(value) for name, value in pairs}
    # Files take precedence over Environment=, wherever it stands.
    for file in settings.get("EnvironmentFile", []):
        path = Path(places.here(file.removeprefix("-")))
        if file.startswith("-") and not path.exists():
            continue
        read = read_environment(path)
        environment |= {name: places.here(value) for name, value in read.items()}
    (line,) = settings[directive]
    words = [places.here(word.replace("$$", "$")) for word in shlex.split(line)]
    own = [re.sub(r"\$\{(\w+)\}", lambda name: environment[name[1]], word) for word in words]
    (directory,) = settings.get("WorkingDirectory", ["/"])
    return Program(own, environment, Path(places.here(directory)))


def read_unit(unit: Path) -> dict[str, list[str]]:
    """Return the values of each directive, in their order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text("utf-8").splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


# Kubernetes


def manifests() -> list[dict[str, Any]]:
    paths = sorted((ROOT / "infra/kubernetes").glob("*.yaml"))
    return [each for path in paths for each in yaml.safe_load_all(path.read_text("utf-8"))]


def container_environment(
    container: Mapping[str, Any], sources: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Return a container's environment.

    Args:
        container: The container, as its pod describes it.
        sources: The data of each config map and secret, by its name.
    """
    result: dict[str, str] = {}
    for source in container["envFrom"]:
        (reference,) = source.values()
        result |= sources[reference["name"]]
    return result | {each["name"]: str(each["value"]) for each in container.get("env", [])}


def made_secret(command: str) -> tuple[str, dict[str, str]]:
    """Return name and data of the secret that this `kubectl create secret` makes."""
    words = [*shlex.split(command), "--dry-run=client", "--output=json"]
    made = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ)
    secret = yaml.safe_load(made.stdout)
    data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    return secret["metadata"]["name"], data
