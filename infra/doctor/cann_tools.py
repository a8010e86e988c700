"""Facts about CANN: its versions, and what works in the environment that its set_env.sh gives.

Libraries are loaded, and Python packages imported, in processes of their own, because some of them
may end the process that tries.
"""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infra.base.ascend import find_set_env, is_readable, read_names, selected_home
from infra.base.cann import selected_version

PROBE_SECONDS = 120.0
"""CANN's libraries are hundreds of megabytes, which a busy disk reads slowly."""

UNREADABLE = "can't be read"
"""What is wrong with a set_env.sh that SKNET_SET_ENV names; others are not found instead."""

LIBRARIES = ("libascendcl.so", "libge_runner.so", "libhccl.so")
"""What MindSpore's plugin for Ascend is linked with, of each part of CANN one."""

MODULES = ("te", "hccl")
"""CANN's own Python packages: MindSpore imports te, and its installation page asks for both."""

# The variables in which MindSpore looks for CANN, in `AscendEnvChecker` of its own check.
_VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_OPP_PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
# MindSpore reads `te.version.version`. The packages may print, so the version comes last.
_IMPORT = """
import importlib, sys
importlib.import_module(sys.argv[1])
try:
    print("\\n" + str(importlib.import_module(sys.argv[1] + ".version").version))
except (ImportError, AttributeError):
    print("\\n")
"""
_VERSIONS = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """What became of loading a library or importing a package."""

    trouble: str = ""
    """The loader's or Python's own message; empty if it worked."""
    version: str = ""
    """The version that the package states; empty if it states none."""


@dataclass(frozen=True, slots=True)
class Cann:
    """The CANN that this environment selects, else the one that is installed below the root."""

    home: Path | None = None
    """Its directory; None if there is none."""
    set_env: Path | None = None
    """Its set_env.sh; None if there is none."""
    trouble: str = ""
    """Why set_env.sh could not be run."""
    toolkit: str | None = None
    """The version of the whole, such as `9.1.0`; None if it has no version file."""
    compiler: str | None = None
    """The version that MindSpore compares (see `infra.base.cann`)."""
    unset: tuple[str, ...] = ()
    """Variables that set_env.sh would change in the doctor's own environment; without set_env.sh,
    those that are not set."""
    libraries: Mapping[str, Probe] | None = None
    modules: Mapping[str, Probe] | None = None
    wheels: Mapping[str, Path] | None = None
    """The wheels that CANN brings, by module; its installer may have installed them itself."""
    packages: Mapping[str, str] | None = None
    """Versions of the installed packages among those asked for."""


def gather_cann(root: Path, packages: Iterable[str]) -> Cann:
    """Look for CANN, run its set_env.sh, and try what ranks will need in that environment.

    Args:
        root: Where driver, firmware and CANN are installed.
        packages: Names of the Python distributions that CANN needs.
    """
    set_env = find_set_env(os.environ, root)
    trouble, environment = "", dict(os.environ)
    if set_env is not None and not is_readable(set_env):
        trouble = UNREADABLE
    elif set_env is not None:
        try:
            environment = _sourced(set_env)
        except (OSError, subprocess.SubprocessError) as error:
            trouble = _reason(error)
    home = _home(environment, root)
    if home is None:
        return Cann(set_env=set_env, trouble=trouble)
    return Cann(
        home=home,
        set_env=set_env,
        trouble=trouble,
        toolkit=_toolkit_version(home),
        compiler=selected_version({"ASCEND_HOME_PATH": str(home)}),
        unset=tuple(name for name in _VARIABLES if _is_unset(name, environment)),
        libraries=_probes(environment, _LOAD, LIBRARIES),
        modules=_probes(environment, _IMPORT, MODULES),
        wheels=_wheels(home),
        packages=_versions(environment, packages),
    )


def _home(environment: Mapping[str, str], root: Path) -> Path | None:
    selected = selected_home(environment)
    homes = [selected] if selected else [root / "cann", root / "ascend-toolkit" / "latest"]
    return next((home for home in homes if home.is_dir()), None)


def _sourced(set_env: Path) -> dict[str, str]:
    """Return this environment as set_env.sh changes it.

    Raises:
        OSError: There is no bash.
        subprocess.SubprocessError: The script didn't end in time.
    """
    ended = subprocess.run(
        ["bash", "-c", '. "$1" > /dev/null 2>&1; env -0', "bash", set_env],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=PROBE_SECONDS,
        check=True,
    )
    lines = ended.stdout.decode("utf-8", "surrogateescape").split("\0")
    pairs = (line.partition("=") for line in lines if line)
    return {name: value for name, _, value in pairs}


def _is_unset(name: str, sourced: Mapping[str, str]) -> bool:
    """Tell whether a variable lacks a path that set_env.sh gives it; their order doesn't matter."""
    own, wanted = ({*each.get(name, "").split(os.pathsep)} for each in (os.environ, sourced))
    return wanted == {""} or bool(wanted - own - {""})


def _toolkit_version(home: Path) -> str | None:
    names = [
        f"{platform.machine()}-linux/ascend_toolkit_install.info",
        "ascend_toolkit_install.info",
    ]
    return next(filter(None, (read_names(home / name).get("version") for name in names)), None)


def _wheels(home: Path) -> dict[str, Path]:
    found = {name: sorted((home / "lib64").glob(f"{name}-*.whl")) for name in MODULES}
    return {name: files[-1] for name, files in found.items() if files}


def _probes(environment: Mapping[str, str], code: str, names: Sequence[str]) -> dict[str, Probe]:
    """Try all at the same time, because each takes seconds where a disk is slow."""
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(partial(_probe, environment, code), names), strict=True))


def _probe(environment: Mapping[str, str], code: str, name: str) -> Probe:
    try:
        printed = _python(environment, code, name)
    except (OSError, subprocess.SubprocessError) as error:
        return Probe(trouble=_reason(error))
    lines = printed.splitlines()
    return Probe(version=lines[-1].strip() if lines else "")


def _versions(environment: Mapping[str, str], names: Iterable[str]) -> Mapping[str, str] | None:
    try:
        found: dict[str, str] = json.loads(_python(environment, _VERSIONS, *names))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return found


def _python(environment: Mapping[str, str], code: str, *arguments: str) -> str:
    """Run code with this Python; -P keeps files of the current directory out."""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PROBE_SECONDS,
        check=True,
    )
    return ended.stdout.decode("utf-8", "replace")


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {PROBE_SECONDS:g} s"
    if isinstance(error, subprocess.CalledProcessError):
        if error.returncode < 0:
            return f"ended by {signal.Signals(-error.returncode).name}"
        printed = bytes(error.stderr or b"").decode("utf-8", "replace").strip().splitlines()
        return printed[-1].removeprefix("OSError: ") if printed else f"code {error.returncode}"
    return str(error)
