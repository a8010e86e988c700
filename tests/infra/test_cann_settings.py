"""Processes that need CANN get the settings of its set_env.sh, and start where it is absent, too.

The lines of units and of the image run in real shells, with a program that prints what it sees in
place of the real ones.
"""

import os
import re
import shlex
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from infra.base.cann import accepted_versions
from infra.doctor.ascend import release_of
from infra.doctor.ascend_tools import TOOL_SECONDS
from infra.doctor.cann_tools import PROBE_SECONDS
from infra.doctor.services import HTTP_SECONDS
from infra.launch.binding import AFFINITY_PROGRAMS, BINDING_PROGRAM
from tests.infra.ascend_trees import CannTree, sourced, write
from tests.processes import ROOT

SCRIPT = ROOT / "infra/cann.sh"
OF_CANN = {*sourced(Path("/")), "SKNET_SET_ENV", "SKNET_CANN_SOURCED"}
UNITS = ("sknet-prefect-worker", "sknet-ray-host")
DOCKERFILE = (ROOT / "infra/docker/Dockerfile.ascend").read_text("utf-8")
PACKAGE_OF = {"taskset": "util-linux", "lscpu": "util-linux", "lspci": "pciutils"}
# Prints what a rank would see of CANN, and its arguments.
PROGRAM = '#!/bin/sh\necho "$ASCEND_HOME_PATH $ASCEND_OPP_PATH $*"\nexit 7\n'


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    write(path, PROGRAM)
    path.chmod(0o755)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return CannTree(libraries=()).write(tmp_path / "Ascend of 'me'")


def run(*command: object, **variables: str) -> tuple[str, str, int]:
    """Run a command with these variables and no others of CANN; return what it printed."""
    clean = {name: value for name, value in os.environ.items() if name not in OF_CANN}
    ended = subprocess.run(
        list(map(str, command)), env={**clean, **variables}, capture_output=True, text=True
    )
    return ended.stdout, ended.stderr, ended.returncode


def with_script(script: Path, program: Path, **variables: str) -> tuple[str, str, int]:
    command = f'. {shlex.quote(str(script))}; exec "$@"'
    return run("/bin/bash", "-c", command, "--", program, "x", "y z", **variables)


def below(root: Path, tmp_path: Path) -> Path:
    """Return the script for a machine on which /usr/local/Ascend is `root`."""
    copy = tmp_path / "cann.sh"
    text = SCRIPT.read_text("utf-8")
    assert "/usr/local/Ascend" in text
    copy.write_text(text.replace("/usr/local/Ascend", str(root)))
    return copy


@pytest.mark.parametrize("directory", ["cann", "ascend-toolkit/latest"])
def test_cann_is_found_where_its_releases_are_installed(
    tmp_path: Path, program: Path, directory: str
) -> None:
    home = CannTree(libraries=(), directory=directory).write(tmp_path / "root")
    seen = with_script(below(tmp_path / "root", tmp_path), program)
    assert seen == (f"{home} {home}/opp x y z\n", "", 7)


def test_a_machine_without_cann_starts_the_program_all_the_same(
    tmp_path: Path, program: Path
) -> None:
    assert with_script(below(tmp_path / "nothing", tmp_path), program) == ("  x y z\n", "", 7)


def test_a_set_env_elsewhere_is_named_by_a_variable(
    tmp_path: Path, program: Path, home: Path
) -> None:
    set_env = str(home / "set_env.sh")
    seen = with_script(below(tmp_path / "nothing", tmp_path), program, SKNET_SET_ENV=set_env)
    assert seen == (f"{home} {home}/opp x y z\n", "", 7)
    wrong = f"{tmp_path}/absent.sh"
    # Not the default in its place, which would be another CANN than the one that was asked for.
    seen = with_script(below(home.parent, tmp_path), program, SKNET_SET_ENV=wrong)
    assert seen == ("  x y z\n", f"SKNET_SET_ENV: {wrong} can't be read\n", 7)


def test_a_shell_that_has_selected_a_cann_keeps_it(
    tmp_path: Path, program: Path, home: Path
) -> None:
    script = below(home.parent, tmp_path)
    mine = CannTree(libraries=()).write(tmp_path / "mine")
    seen = with_script(script, program, ASCEND_HOME_PATH=str(mine))
    assert seen == (f"{mine} {mine}/opp x y z\n", "", 7)
    seen = with_script(script, program, ASCEND_HOME_PATH="/mine")  # nothing to source there
    assert seen == ("/mine  x y z\n", "", 7)


@pytest.mark.parametrize("directory", ["cann", "ascend-toolkit/latest"])
def test_a_preset_home_without_the_other_settings_is_completed(
    tmp_path: Path, program: Path, directory: str
) -> None:
    # As the image that the Ascend image is built on presets it.
    home = CannTree(libraries=(), directory=directory).write(tmp_path / "root")
    script = below(tmp_path / "root", tmp_path)
    seen = with_script(script, program, ASCEND_HOME_PATH=f"{home}")
    assert seen == (f"{home} {home}/opp x y z\n", "", 7)


def test_a_named_set_env_comes_before_the_selected_cann(
    tmp_path: Path, program: Path, home: Path
) -> None:
    other = CannTree(libraries=()).write(tmp_path / "other")
    script = below(tmp_path / "nothing", tmp_path)
    variables = {**sourced(other), "SKNET_CANN_SOURCED": f"{other}/set_env.sh"}
    seen = with_script(script, program, **variables, SKNET_SET_ENV=f"{home}/set_env.sh")
    assert seen == (f"{home} {home}/opp x y z\n", "", 7)


def test_shells_within_a_shell_source_it_once(tmp_path: Path) -> None:
    home = CannTree(libraries=(), directory="cann-9.1.0").write(tmp_path / "root")
    (home.parent / "cann").symlink_to(home)
    count = tmp_path / "count"
    with (home / "set_env.sh").open("a") as file:
        file.write(f"echo sourced >> {shlex.quote(str(count))}\n")
    script = shlex.quote(str(below(tmp_path / "root", tmp_path)))
    nested = f". {script}; . {script}; exec /bin/bash -c {shlex.quote(f'. {script}')}"
    assert run("/bin/bash", "-c", nested) == ("", "", 0)
    assert count.read_text() == "sourced\n"


@pytest.mark.parametrize("has_cann", [True, False], ids=["with CANN", "without"])
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_starts_its_programs_with_cann_where_it_is(
    unit: str, has_cann: bool, home: Path, program: Path
) -> None:
    text = (ROOT / f"infra/systemd/{unit}.service").read_text("utf-8")
    commands = re.findall(r"^ExecStart(?:Pre)?=(.*)$", text, re.MULTILINE)
    assert len(commands) == 1 + (unit == "sknet-ray-host")
    variables = {"SKNET_SET_ENV": str(home / "set_env.sh")} if has_cann else {}
    for command in commands:
        assert command.startswith("/bin/bash -c '. /srv/sknet/infra/cann.sh; ")
        # What systemd itself does to a line: dollars, quotes, variables.
        words = shlex.split(command.replace("$$", "\0"))
        words = [w.replace("${RAY_HEAD}", "head:6379").replace("\0", "$") for w in words]
        words = [w.replace("/srv/sknet", str(ROOT)) for w in words]
        index = next(i for i, word in enumerate(words) if word.startswith("/opt/sknet/bin/"))
        printed, complaints, code = run(*words[:index], program, *words[index + 1 :], **variables)
        own = f"{home} {home}/opp" if has_cann else " "
        assert (printed, complaints) == (f"{own} {' '.join(words[index + 1 :])}\n", "")
        assert code == 7  # the program has replaced the shell


def test_a_host_waits_for_the_doctor_as_long_as_that_may_take() -> None:
    text = (ROOT / "infra/systemd/sknet-ray-host.service").read_text("utf-8")
    limit = re.search(r"^TimeoutStartSec=(\d+)$", text, re.MULTILINE)
    assert limit is not None
    assert "--peer" not in text  # whose pings would take longer
    tools = 3  # npu-smi info; of all devices at once, the link and then the address
    probes = 4  # set_env.sh; all libraries at once; all modules at once; versions of packages
    others = 2 * HTTP_SECONDS  # Prefect's health and version
    longest = tools * TOOL_SECONDS + probes * PROBE_SECONDS + others
    assert int(limit[1]) >= longest + 60  # imports of the doctor itself from a slow disk


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_whose_ranks_use_cann_has_a_home_for_its_logs(unit: str) -> None:
    text = (ROOT / f"infra/systemd/{unit}.service").read_text("utf-8")
    assert "\nStateDirectory=sknet\n" in text
    home = "/var/lib/sknet"  # where systemd makes that directory
    assert f"--home-dir {home} sknet" in (ROOT / "infra/systemd/README.md").read_text("utf-8")


@pytest.mark.parametrize("has_cann", [True, False], ids=["with CANN", "without"])
def test_the_image_starts_its_programs_with_cann(has_cann: bool, home: Path, program: Path) -> None:
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)
    bash_env = re.search(r"BASH_ENV=/srv/sknet/(\S+)", DOCKERFILE)
    assert entry is not None
    assert bash_env is not None
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', entry[1])
    variables = {"SKNET_SET_ENV": str(home / "set_env.sh")} if has_cann else {}
    printed, complaints, code = run(
        *(word.replace('\\"', '"') for word in words),
        *(program, "x"),
        BASH_ENV=str(ROOT / bash_env[1]),
        **variables,
    )
    own = f"{home} {home}/opp" if has_cann else " "
    assert (printed, complaints, code) == (f"{own} x\n", "", 7)


def test_the_image_installs_the_wheels_that_its_cann_brings(tmp_path: Path, home: Path) -> None:
    instruction = re.search(
        r"^RUN (\. infra/cann\.sh.*?)^RUN", DOCKERFILE, re.MULTILINE | re.DOTALL
    )
    assert instruction is not None
    script = instruction[1].replace("\\\n", " ")
    write(tmp_path / "bin/pip", '#!/bin/sh\necho "$@"\n')
    (tmp_path / "bin/pip").chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    command = ("/bin/bash", "-o", "pipefail", "-c", f"cd {ROOT}; {script}")
    set_env = str(home / "set_env.sh")
    wheel = home / "lib64/hccl-0.1.0-py3-none-any.whl"
    assert run(*command, PATH=path, SKNET_SET_ENV=set_env)[::2] == (
        f"install --no-deps {wheel}\n",
        0,
    )
    wheel.unlink()
    assert run(*command, PATH=path, SKNET_SET_ENV=set_env) == ("", "", 0)


def test_the_image_has_the_programs_of_bind_core_and_cann_needs_of_python() -> None:
    installed = re.search(r"apt-get install [^\n]*?recommends (.*?) \\", DOCKERFILE)
    assert installed is not None
    from_debian = {BINDING_PROGRAM, *AFFINITY_PROGRAMS} - {"npu-smi"}  # the driver's, mounted
    assert {PACKAGE_OF[name] for name in from_debian} <= set(installed[1].split())
    assert "pip install '.[cluster,ascend]' --constraint constraints.txt" in DOCKERFILE


def test_the_page_on_imagenet_says_from_what_to_what_to_upgrade() -> None:
    page = " ".join((ROOT / "docs/imagenet.md").read_text("utf-8").split())
    published, newest = release_of("2.5.0"), release_of("2.10.0")
    assert published is not None
    assert newest is not None
    assert (
        f"MindSpore {published.mindspore}, driver {published.driver}, firmware "
        f"{published.firmware} and CANN {published.cann}."
    ) in page
    assert f"| driver and firmware (Ascend HDK) | {newest.driver} |" in page
    assert f"| CANN: toolkit, and operators for your card | {newest.cann} |" in page
    assert f"| MindSpore | {newest.mindspore} | it accepts CANN" in page
    if metadata.version("mindspore") == newest.mindspore:
        assert f"it accepts CANN {', '.join(accepted_versions() or ())}, as its wheel says" in page


def test_the_page_on_imagenet_sources_set_env_before_anything_else() -> None:
    page = (ROOT / "docs/imagenet.md").read_text("utf-8")
    first_commands = page.split("```text\n")[1].splitlines()
    assert first_commands[0] == "source /usr/local/Ascend/cann/set_env.sh"
    assert any("'.[cluster,ascend]'" in line for line in first_commands)
    assert "sknet doctor --ascend --workers 8" in first_commands
