"""The plugin that makes `prefect deployment run NAME` work without a slash."""

import os
import subprocess
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from prefect.context import get_settings_context, use_profile
from prefect.settings import PREFECT_PROFILES_PATH, load_profiles, temporary_settings

from infra.prefect.bare_name import FLOWS, enable, with_full_name
from tests.prefect_services import prefect_command
from tests.processes import ROOT


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("deployment run train-sknet", "deployment run train-sknet/train-sknet"),
        ("deployment run report -p store=s", "deployment run report/report -p store=s"),
        ("deployment run nightly", "deployment run revalidate/nightly"),
        ("deployment run revalidate/nightly", "deployment run revalidate/nightly"),
        ("deployment run --id 1234", "deployment run --id 1234"),
        ("deployment run -p a=b train-sknet", "deployment run -p a=b train-sknet"),
        ("deployment run", "deployment run"),
        ("deployment ls", "deployment ls"),
        ("flow-run ls train-sknet", "flow-run ls train-sknet"),
        ("version", "version"),
        ("", ""),
    ],
)
def test_only_the_bare_name_of_a_deployment_is_completed(typed: str, meant: str) -> None:
    assert with_full_name(typed.split()) == meant.split()


def test_the_installed_distribution_registers_the_plugin() -> None:
    (plugin,) = entry_points(group="prefect.plugins", name="sknet")
    assert plugin.value == "infra.prefect.bare_name"


def test_every_deployment_has_a_bare_name() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
    for deployment in deployments:
        flow = deployment["entrypoint"].partition(":")[2].replace("_", "-")
        assert FLOWS.get(deployment["name"], deployment["name"]) == flow


def test_registering_enables_the_plugin_and_keeps_what_the_profile_says(tmp_path: Path) -> None:
    path = tmp_path / "profiles.toml"
    with temporary_settings({PREFECT_PROFILES_PATH: path}):
        done = enable()
        profile = load_profiles()[get_settings_context().profile.name]
        assert done == f"enabled in the profile {profile.name!r}"
        values = {setting.name: value for setting, value in profile.settings.items()}
        assert values["PREFECT_PLUGINS_ENABLED"] == "true"
        assert values["PREFECT_PLUGINS_ALLOW"] == "sknet"
        written = path.read_bytes()
        with use_profile(profile, include_current_context=False):
            assert enable() == f"as the profile {profile.name!r} has it"
        assert path.read_bytes() == written


@pytest.mark.slow
def test_a_user_who_registers_nothing_can_enable_the_plugin_everywhere(tmp_path: Path) -> None:
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    (command,) = (each for each in text.split("`") if each.startswith("prefect config set"))
    settings = dict(word.split("=") for word in command.split()[3:])
    ended = subprocess.run(
        prefect_command("deployment", "run", "train-sknet"),
        cwd=tmp_path,
        env={**os.environ, **settings, "PREFECT_API_URL": "http://127.0.0.1:9/api"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Not `Invalid deployment name format`.
    assert "All connection attempts failed" in ended.stdout + ended.stderr
