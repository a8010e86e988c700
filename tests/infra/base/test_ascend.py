"""Device files, driver and set_env.sh are found on trees that the test makes."""

from pathlib import Path

import pytest

from infra.base.ascend import count_device_files, driver_directory, find_set_env
from tests.infra.ascend_trees import CannTree, write


def test_only_device_files_of_cards_count(tmp_path: Path) -> None:
    for name in ("davinci_manager", "davinci0", "davinci15", "davinci1x", "null"):
        (tmp_path / name).touch()
    assert count_device_files(tmp_path) == 2


@pytest.mark.parametrize(
    ("info", "drivers", "expected"),
    [
        (None, ["root", "other"], "root"),
        ("UserName=HwHiAiUser\n", ["root"], "root"),
        ("UserName=HwHiAiUser\nDriver_Install_Path_Param={other}\n", ["root", "other"], "other"),
        ("Driver_Install_Path_Param={other}/\n", ["other"], "other"),
        # A container whose driver is mounted at the usual place, with the host's file.
        ("Driver_Install_Path_Param={other}\n", ["root"], "root"),
        ("Driver_Install_Path_Param={other}\n", [], "other"),
    ],
)
def test_the_driver_is_where_its_installer_says(
    tmp_path: Path, info: str | None, drivers: list[str], expected: str
) -> None:
    for name in drivers:
        write(tmp_path / name / "driver/version.info", "Version=25.5.0\n")
    file = tmp_path / "etc/ascend_install.info"
    if info is not None:
        write(file, info.format(other=tmp_path / "other"))
    assert driver_directory(tmp_path / "root", file) == tmp_path / expected / "driver"


def test_a_set_env_is_looked_for_in_the_order_of_the_shell_script(tmp_path: Path) -> None:
    root, environment = tmp_path / "root", {"PATH": "/bin"}
    assert find_set_env(environment, root) is None
    CannTree(directory="ascend-toolkit/latest").write(root)
    assert find_set_env(environment, root) == root / "ascend-toolkit/set_env.sh"
    CannTree().write(root)
    assert find_set_env(environment, root) == root / "cann/set_env.sh"

    old = CannTree(directory="ascend-toolkit/latest").write(tmp_path)
    environment["ASCEND_TOOLKIT_HOME"] = str(old)
    assert find_set_env(environment, root) == tmp_path / "ascend-toolkit/set_env.sh"
    environment["ASCEND_HOME_PATH"] = str(CannTree().write(tmp_path))
    assert find_set_env(environment, root) == tmp_path / "cann/set_env.sh"
    environment["ASCEND_HOME_PATH"] = "/absent"
    assert find_set_env(environment, root) is None

    environment["SKNET_SET_ENV"] = "/absent/set_env.sh"
    assert find_set_env(environment, root) == Path("/absent/set_env.sh")
