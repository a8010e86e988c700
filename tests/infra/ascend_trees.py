"""Trees as CANN installs them, for tests: real shared libraries, packages and a real set_env.sh.

The libraries are copies of one of the system's own, so that they can be loaded; what CANN's really
contain is not needed for loading them.
"""

import platform
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LIBRARIES = ("libascendcl.so", "libge_runner.so", "libhccl.so")

# The lines of CANN's own set_env.sh that matter here, as its users print them in many issues.
SET_ENV = """\
export ASCEND_TOOLKIT_HOME={home}
export LD_LIBRARY_PATH=$ASCEND_TOOLKIT_HOME/lib64:$LD_LIBRARY_PATH
export PYTHONPATH=$ASCEND_TOOLKIT_HOME/opp/built-in/op_impl/ai_core/tbe:$PYTHONPATH
export PYTHONPATH=$ASCEND_TOOLKIT_HOME/python/site-packages:$PYTHONPATH
export PATH=$ASCEND_TOOLKIT_HOME/bin:$PATH
export ASCEND_OPP_PATH=$ASCEND_TOOLKIT_HOME/opp
export ASCEND_HOME_PATH=$ASCEND_TOOLKIT_HOME
"""


@dataclass(frozen=True)
class CannTree:
    """A CANN to write below a root, right in every way unless a field says otherwise."""

    toolkit: str = "9.1.0"
    """The version of the whole."""
    compiler: str | None = "9.1.0"
    """The version of the part that MindSpore looks at; None: without its file."""
    directory: str = "cann"
    """`ascend-toolkit/latest` before CANN 8.5."""
    libraries: tuple[str, ...] = LIBRARIES
    te: str | None = "9.1.0"
    """The version of the package te; None: without it."""
    hccl: bool = True
    wheels: tuple[str, ...] = ("hccl-0.1.0-py3-none-any.whl",)
    packages: dict[str, str] = field(default_factory=dict)
    """Versions of Python distributions that its set_env.sh adds."""

    def write(self, root: Path) -> Path:
        """Write the tree and return its home."""
        home = root / self.directory
        site = home / "python/site-packages"
        for path in (home / "lib64", home / "bin", site, home / "opp/built-in"):
            path.mkdir(parents=True)
        is_old = "ascend-toolkit" in self.directory
        set_env = (home.parent if is_old else home) / "set_env.sh"
        set_env.write_text(SET_ENV.format(home=shlex.quote(str(home))))
        info = home / f"{platform.machine()}-linux/ascend_toolkit_install.info"
        info.parent.mkdir()
        info.write_text(f"package_name=Ascend-cann-toolkit\nversion={self.toolkit}\n")
        if self.compiler is not None:
            file = home / "compiler/version.info"
            file.parent.mkdir()
            file.write_text(f"Version={self.compiler}\nversion_dir={self.toolkit}\n")
        for name in self.libraries:
            (home / "lib64" / name).write_bytes(loadable())
        for name in self.wheels:
            (home / "lib64" / name).touch()
        if self.te is not None:
            write(site / "te/__init__.py", "")
            write(site / "te/version.py", f"version = {self.te!r}\n")
        if self.hccl:
            write(site / "hccl/__init__.py", "")
        for name, version in self.packages.items():
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            write(site / f"{name.replace('-', '_')}-{version}.dist-info/METADATA", metadata)
        return home


def loadable() -> bytes:
    """Return the bytes of a shared library of the system."""
    paths = {mapped.path for mapped in psutil.Process().memory_maps()}
    (path,) = (path for path in paths if Path(path).name in ("libm.so.6", "libm-2.31.so"))
    return Path(path).read_bytes()


def with_missing_dependency() -> bytes:
    """Return a shared library that needs `libX.so.6`, which doesn't exist."""
    library = loadable()
    assert b"\0libc.so.6\0" in library
    return library.replace(b"\0libc.so.6\0", b"\0libX.so.6\0")


def sourced(home: Path) -> dict[str, str]:
    """Return the variables that a shell has after it sourced the tree's set_env.sh."""
    return {
        "ASCEND_HOME_PATH": str(home),
        "ASCEND_TOOLKIT_HOME": str(home),
        "ASCEND_OPP_PATH": f"{home}/opp",
        "LD_LIBRARY_PATH": f"{home}/lib64:",
        "PYTHONPATH": f"{home}/python/site-packages:{home}/opp/built-in/op_impl/ai_core/tbe:",
    }


def write(path: Path, text: str) -> None:
    """Write a text file in a directory that may not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
