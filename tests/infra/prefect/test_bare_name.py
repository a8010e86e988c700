"""The plugin that makes `prefect deployment run NAME` work without a slash."""

from importlib.metadata import entry_points

import pytest

from infra.prefect.bare_name import with_full_name


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("deployment run train-sknet", "deployment run train-sknet/train-sknet"),
        ("deployment run report -p store=s", "deployment run report/report -p store=s"),
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
