"""Which CANN this environment selects, and whether the installed MindSpore accepts it.

CANN is what Ascend devices are programmed with. MindSpore states in its own sources which releases
it accepts; they are read here without importing it. It compares the file compiler/version.info
below ASCEND_HOME_PATH (set by CANN's set_env.sh) and warns only, which a log level of 3, as the
launcher sets it for ranks, hides.
"""

import ast
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from infra.base.ascend import MAX_FILE

CHECK = "run_check/_check_version.py"
"""MindSpore's own check, below its package."""


def accepted_versions(package: Path | None = None) -> tuple[str, ...] | None:
    """Return the releases of CANN that MindSpore accepts, such as `("8.5", "9.0")`.

    Args:
        package: MindSpore's package; None: the installed one.

    Returns:
        The releases, in MindSpore's order; None if MindSpore isn't installed, or if its check has
        another form than in 2.7 to 2.10.
    """
    package = package or _installed_package()
    if package is None:
        return None
    try:
        tree = ast.parse((package / CHECK).read_bytes()[:MAX_FILE])
    except (OSError, SyntaxError, ValueError):
        return None
    checkers = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == "AscendEnvChecker"
    )
    for assignment in (node for checker in checkers for node in ast.walk(checker)):
        match assignment:
            case ast.Assign(
                targets=[ast.Attribute(value=ast.Name(id="self"), attr="version")],
                value=ast.List(elts=elements),
            ):
                values = [each.value for each in elements if isinstance(each, ast.Constant)]
                versions = tuple(value for value in values if isinstance(value, str))
                return versions if len(versions) == len(elements) else None
    return None


def version_file(environment: Mapping[str, str]) -> Path | None:
    """Return the file that MindSpore's check reads; None if no CANN is selected."""
    home = environment.get("ASCEND_HOME_PATH")
    return Path(f"{home}/compiler/version.info") if home else None


def selected_version(environment: Mapping[str, str]) -> str | None:
    """Return the version that MindSpore's check finds, in full, such as `9.1.0`.

    Returns:
        The version; empty if the file has none; None if there is no such file, in which case
        MindSpore skips its check.
    """
    file = version_file(environment)
    if file is None:
        return None
    try:
        text = file.read_bytes()[:MAX_FILE].decode("utf-8", "replace")
    except OSError:
        return None
    # As MindSpore does: the name's case matters, and the first such line counts.
    lines = (line for line in text.splitlines() if line.startswith("Version="))
    return next((line.strip().split("=")[1] for line in lines), "")


def release(version: str) -> str:
    """Return the part of a version that MindSpore compares: `8.2` for `8.2.RC1`."""
    return ".".join(version.split(".")[:2])


def version_warning(environment: Mapping[str, str]) -> str | None:
    """Return a warning if MindSpore doesn't accept the selected CANN, or can't tell.

    Returns:
        One line; None if it is accepted, if none is selected, or if MindSpore's list can't be read.
    """
    file, accepted = version_file(environment), accepted_versions()
    if file is None or accepted is None:
        return None
    found = selected_version(environment)
    if found is None:
        return f"MindSpore doesn't check the version of CANN, because there is no {file}"
    if release(found) in accepted:
        return None
    return (
        f"CANN {found or '(unknown)'} of {file} is not accepted by MindSpore "
        f"{metadata.version('mindspore')}, which accepts {', '.join(accepted)}: install one of "
        "these (docs/imagenet.md)"
    )


def _installed_package() -> Path | None:
    try:
        return Path(str(metadata.distribution("mindspore").locate_file("mindspore")))
    except metadata.PackageNotFoundError:
        return None
