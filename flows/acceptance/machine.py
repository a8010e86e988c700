"""The machine on which the acceptance runs: the versions of everything that takes part."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import flows
import infra
import sknet
import tasks
from infra.base.files import file_sha256
from infra.doctor.ascend_tools import Ascend, gather
from infra.doctor.machine import installation

VARIABLES = ("ASCEND_", "HCCL_", "MS_")
"""What the names of variables begin with that change how MindSpore or CANN compute."""

PACKAGES = (sknet, infra, tasks, flows)


@dataclass(frozen=True)
class Machine:
    """What was found on this machine."""

    versions: Mapping[str, str]
    """By name; empty where there is none."""
    inputs: Mapping[str, str]
    """Those versions on which measured figures depend, and variables of the environment."""
    ascend: Ascend | None
    """Devices and versions of Ascend; None on CPU."""


def look_at(device_target: str) -> Machine:
    """Look at this machine; on Ascend, with its tools."""
    ascend = gather([]) if device_target == "Ascend" else None
    own = {
        "Python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "sknet": metadata.version("sknet"),
        "source of sknet": _source_digest(),
        "driver": ascend.driver.get("version", "") if ascend else "",
        "firmware": ascend.firmware.get("version", "") if ascend else "",
        "CANN": (ascend.cann.toolkit or ascend.cann.compiler or "") if ascend else "",
        "devices": _devices(ascend) if ascend else "",
    }
    packages = dict(installation().versions or {})
    chosen = ("Python", "machine", "source of sknet", "driver", "firmware", "CANN", "devices")
    inputs = {name: own[name] for name in chosen}
    for name in ("mindspore", "numpy"):
        inputs[name] = packages.get(name, "")
    inputs |= {name: os.environ[name] for name in sorted(os.environ) if name.startswith(VARIABLES)}
    return Machine({**packages, **own}, inputs, ascend)


def _devices(ascend: Ascend) -> str:
    if ascend.devices is None:
        return ""
    return f"{len(ascend.devices)} x {', '.join(sorted({each.name for each in ascend.devices}))}"


def _source_digest() -> str:
    """Return a digest of the product's own source, which figures depend on too."""
    sums = [
        (str(path.relative_to(root.parent)), file_sha256(path))
        for package in PACKAGES
        for root in (Path(str(package.__file__)).parent,)
        for path in sorted(root.rglob("*"))
        if path.suffix in (".py", ".yaml")
    ]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]
