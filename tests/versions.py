"""make test-versions: what works on which MindSpore and Python, as a table in docs/ascend.md.

Each version gets a virtual environment of its own, in which run `make test-fast` and a training
that is stopped, resumed and compared with one that was not. Only the standard library is imported,
as no environment exists before.
"""

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.base.cann import accepted_versions

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/ascend.md"
ENVIRONMENTS = ROOT / ".venv-versions"
BEGIN, END = "<!-- versions: begin -->", "<!-- versions: end -->"
NEEDED_BYTES = 12 << 30
"""One environment: 5 GB, and on Python 3.12, where PyPI's torch brings CUDA, up to 10 GB."""
HANG_SECONDS = 1800
"""No training of 22 steps takes that long, and no step of it."""


@dataclass(frozen=True)
class Version:
    """A version of MindSpore on a version of Python."""

    mindspore: str
    python: str

    @property
    def name(self) -> str:
        """What the table and the directory are called."""
        return f"{self.mindspore}-py{self.python}"


# The newest on each Python, the older ones on one.
SUPPORTED = (
    Version("2.10.0", "3.11"),
    Version("2.10.0", "3.12"),
    Version("2.9.0", "3.11"),
    Version("2.8.0", "3.11"),
    Version("2.7.2", "3.11"),
    Version("2.7.1", "3.11"),
)


@dataclass(frozen=True)
class Tried:
    """What happened on a version."""

    version: Version
    fast_suite: str
    training: str
    cann: tuple[str, ...] = ()
    failed: bool = False


def markdown(results: Sequence[Tried]) -> str:
    """Return the table, with a row for each version."""
    rows = [
        ("MindSpore", "Python", "fast suite", "small training", "CANN"),
        ("---",) * 5,
        *(
            (
                each.version.mindspore,
                each.version.python,
                each.fast_suite,
                each.training,
                ", ".join(each.cann),
            )
            for each in results
        ),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write_into(page: Path, text: str) -> None:
    """Replace what stands between the page's two marks."""
    before = page.read_text("utf-8")
    marked = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not marked.search(before):
        raise SystemExit(f"{page} has no place for the table: {BEGIN} … {END}")
    page.write_text(marked.sub(lambda _: f"{BEGIN}\n{text}{END}", before), "utf-8")


def interpreter(python: str) -> str | None:
    """Return an interpreter of this version; None if there is none, or if it doesn't start."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python{python}"), sys.executable]
    found += map(str, sorted(pyenv.glob(f"versions/{python}.*/bin/python")))
    for path in filter(None, found):
        asked = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        # pyenv's own `python3.12` only prints an error unless that version is selected.
        if answer.stdout.strip() == python:
            return path
    return None


def with_mindspore(constraints: str, version: str) -> str:
    """Return constraints.txt with another MindSpore.

    Raises:
        ValueError: It has no line, or more than one, for MindSpore.
    """
    changed, count = re.subn("(?m)^mindspore==.*$", f"mindspore=={version}", constraints)
    if count != 1:
        raise ValueError(f"constraints.txt has {count} lines for mindspore, expected 1")
    return changed


def try_version(version: Version) -> Tried:
    """Make the environment, run everything in it, and remove it if nothing failed."""
    python = interpreter(version.python)
    if python is None:
        why = f"not run: no python{version.python} was found"
        return Tried(version, why, why)
    environment = ENVIRONMENTS / version.name
    log, constraints = (ENVIRONMENTS / f"{version.name}.{kind}" for kind in ("log", "txt"))
    ENVIRONMENTS.mkdir(exist_ok=True)
    free = shutil.disk_usage(ENVIRONMENTS).free
    if not environment.exists() and free < NEEDED_BYTES:
        raise SystemExit(
            f"{free >> 30} GB are free in {ENVIRONMENTS}, expected {NEEDED_BYTES >> 30}: make room"
        )
    text = (ROOT / "constraints.txt").read_text("utf-8")
    constraints.write_text(with_mindspore(text, version.mindspore), "utf-8")
    settings = [
        f"VENV={environment.relative_to(ROOT)}",  # make splits names at spaces
        f"CONSTRAINTS={constraints.relative_to(ROOT)}",
        f"PYTHON={python}",
    ]
    print(f"{version.name}: installing, fast suite (log: {log})", flush=True)
    with log.open("w", encoding="utf-8") as out:
        make = ["make", "--no-print-directory", *settings, "test-fast"]
        suite = subprocess.run(make, cwd=ROOT, stdout=out, stderr=out, check=False)
    printed = log.read_text("utf-8", "replace")
    counts = summary_of(printed, suite.returncode)
    print(f"{version.name}: {counts}", flush=True)
    fast_suite = "passed" if suite.returncode == 0 else counts
    packages = [*environment.glob("lib/python*/site-packages/mindspore")]
    if not packages:
        return Tried(version, fast_suite, "not run", failed=True)
    for line in re.findall(r"^(?:FAILED|ERROR) .*", printed, re.MULTILINE):
        print(line, flush=True)
    training = try_training(environment / "bin/python", environment / "small-training", log)
    print(f"{version.name}: small training: {training}", flush=True)
    failed = suite.returncode != 0 or training != "yes"
    cann = accepted_versions(packages[0]) or ()
    if not failed:
        shutil.rmtree(environment)
    return Tried(version, fast_suite, training, cann, failed)


def summary_of(log: str, code: int) -> str:
    """Return the counts in pytest's last line, or that it didn't come so far."""
    last = re.findall(r"^=*\s*((?:\d+ \w+, )*\d+ \w+) in [\d.]+s", log, re.MULTILINE)
    return last[-1] if last else f"failed: exit code {code} before the tests"


def try_training(python: Path, directory: Path, log: Path) -> str:
    """Train twice, once stopped and resumed: `yes`, or what was not as it should be."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if code := train(python, directory, "whole", log):
        return f"no: exit code {code}"
    stopped = train(python, directory, "stopped", log, stop_after="step-00000011")
    if stopped != 1:
        return f"no: exit code {stopped} after SIGTERM, expected 1"
    if code := train(python, directory, "stopped", log):
        return f"no: exit code {code} when resumed"
    if "resuming from step-" not in log.read_text("utf-8", "replace"):
        return "no: it was started anew, not resumed"
    equal = final_digests(directory / "whole") == final_digests(directory / "stopped")
    return "yes" if equal else "no: other bytes after it was resumed"


def train(
    python: Path, directory: Path, name: str, log: Path, stop_after: str | None = None
) -> int:
    """Train the digits for an epoch of 22 steps, and return the exit code.

    Args:
        python: The interpreter of the environment.
        directory: Where shards, the cache and checkpoints lie.
        name: The directory of the checkpoints in it.
        log: What the training prints is appended to it.
        stop_after: As soon as there is this checkpoint, the training is asked to stop.
    """
    choices = ["--set", "epoch_size=1", "--set", "warmup_epochs=0"]
    options = ["--data_dir", "digits", "--distribute", "False", "--ckpt_save_dir", name]
    with log.open("a", encoding="utf-8") as out:
        process = subprocess.Popen(
            [python, "-m", "sknet.train", "--config", "skresnet18_digits", *choices, *options],
            cwd=directory,
            env={**os.environ, "GLOG_v": "3", "SKNET_CACHE": str(directory / "cache")},
            stdout=out,
            stderr=out,
        )
        try:
            while stop_after and process.poll() is None:
                if (directory / name / stop_after).exists():
                    process.send_signal(signal.SIGTERM)
                    break
                time.sleep(0.1)
            return process.wait(HANG_SECONDS)
        finally:
            process.kill()


def final_digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of the files of the last checkpoint."""
    final = max(directory.glob("step-*"))
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (final / "model.ckpt", final / "state.json")
    }


def main(names: Sequence[str]) -> int:
    """Try the named versions, or all; only the table of all goes into the page.

    Returns:
        1 if a version failed, else 0.
    """
    known = {version.name: version for version in SUPPORTED}
    if unknown := set(names) - set(known):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    results = [try_version(known[name]) for name in names or known]
    table = markdown(results)
    print(table, end="")
    if not names:
        write_into(PAGE, table)
    return int(any(each.failed for each in results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", help="such as 2.9.0-py3.11 (default: all)")
    sys.exit(main(parser.parse_args().versions))
