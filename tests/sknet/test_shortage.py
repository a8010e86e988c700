"""A full disk and refused memory end a program in one line with the figures."""

import dataclasses
import importlib
import json
import re
import subprocess
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from sknet import program
from sknet.errors import DiskFullError, MemoryRefusedError
from tests import disks
from tests.sknet.conftest import write_images
from tests.sknet.conversions import contents, convert

PAGE = 4096
MEGABYTES = r"\d[\d.]* MB"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", "size=64m") as mounted:
        yield mounted


def fill(disk: Path, *, leave: int) -> Path:
    filler = disk / "filler"
    free = disks.free_bytes(disk)
    filler.write_bytes(bytes((free - leave) // PAGE * PAGE))
    return filler


def test_conversion_onto_a_full_disk_names_the_figures_and_goes_on_when_there_is_room(
    tmp_path: Path, disk: Path
) -> None:
    source = write_images(tmp_path / "images")
    undisturbed, out = tmp_path / "undisturbed", disk / "out"
    convert(source, undisturbed, num_shards=3)
    filler = fill(disk, leave=20_000)
    with pytest.raises(DiskFullError) as caught:
        convert(source, out, num_shards=3)
    assert re.fullmatch(
        rf"disk full: shard train-00000-of-00003\.mindrecord needs {MEGABYTES} and "
        rf"MindSpore's writer 10\.5 MB, {MEGABYTES} are free in {out}: make room, then start "
        "the same command again",
        str(caught.value),
    )
    assert list(out.glob("*.mindrecord*")) == []
    assert [path for path in out.glob(".conversion/*") if path.is_dir()] == []
    filler.unlink()
    convert(source, out, num_shards=3)
    assert contents(out) == contents(undisturbed)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DiskFullError("disk full: it needs 3 MB"), "disk_full"),
        (OSError(28, "No space left on device"), "disk_full"),
        (MemoryRefusedError("out of memory: at most 3 MB"), "failed"),
    ],
)
def test_program_reports_which_shortage_ended_it(
    error: Exception, status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: Namespace) -> None:
        raise error

    arguments = Namespace(outcome_file=tmp_path / "outcome.json")
    assert program.run(main, arguments) == 1
    outcome = json.loads(arguments.outcome_file.read_text())
    assert outcome == {"status": status, "message": str(error)}
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize(
    ("program_name", "advice"),
    [
        ("train", "lower batch_size or num_parallel_workers, or allow more memory"),
        ("convert", "lower --workers, or allow more memory"),
        ("data.__main__", "allow more memory"),
    ],
)
def test_program_advises_the_options_that_it_has(
    program_name: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: Namespace) -> None:
        raise MemoryError

    options = importlib.import_module(f"sknet.{program_name}").Options
    arguments = Namespace(**{field.name: None for field in dataclasses.fields(options)})
    assert program.run(main, arguments) == 1
    assert capsys.readouterr().err.endswith(f"): {advice}\n")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("of ours")])
def test_another_error_of_the_kind_is_not_taken_for_a_shortage(
    error: Exception, tmp_path: Path
) -> None:
    def main(_: Namespace) -> None:
        raise error

    with pytest.raises(type(error), match=str(error.args[-1])):
        program.run(main, Namespace(outcome_file=tmp_path / "outcome.json"))
    assert not (tmp_path / "outcome.json").exists()


TAKING = {
    "python": "bytearray(10**10)",
    "mindspore": "ops.broadcast_to(ms.Tensor(np.ones(1000, np.float32)), (10**6, 1000)).asnumpy()",
}


@pytest.mark.slow
@pytest.mark.parametrize("taker", TAKING)
def test_refused_memory_is_told_with_what_the_process_held(taker: str, tmp_path: Path) -> None:
    code = f"""
        import argparse, resource, sys
        from pathlib import Path
        from sknet import program
        if {taker!r} == "mindspore":
            import mindspore as ms
            import numpy as np
            from mindspore import ops
            ops.add(ms.Tensor([1.0]), ms.Tensor([1.0])).asnumpy()
        (size,) = (line for line in open("/proc/self/status") if line.startswith("VmSize"))
        limit = int(size.split()[1]) * 1024 + 300_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        arguments = argparse.Namespace(outcome_file=Path(sys.argv[1]))
        sys.exit(program.run(lambda _: {TAKING[taker]}, arguments))
    """
    outcome = tmp_path / "outcome.json"
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(outcome)], cwd=tmp_path, timeout=600
    )
    assert ended.returncode == 1
    said = json.loads(outcome.read_text())
    assert said["status"] == "failed"
    number = r"\d[\d.]*"
    assert re.fullmatch(
        r"out of memory: (an allocation was refused|Allocate device memory failed); the process "
        rf"held at most {number} MB \(address space: limit {number} MB\): allow more memory",
        said["message"],
    ), said["message"]
