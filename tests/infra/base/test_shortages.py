"""Shortages are told apart from other errors, and reported with the figures that the cure needs."""

import errno
import re
from pathlib import Path

import pytest

from infra.base.shortages import (
    DiskFullError,
    MemoryRefusedError,
    disk_full,
    is_disk_full,
    memory_for,
    memory_refused,
    room,
    size_text,
)

SIZE = r"\d[\d.]* [MG]B"


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (DiskFullError("disk full"), True),
        (OSError(errno.EIO, "Input/output error"), False),
    ],
)
def test_a_full_disk_is_told_apart_from_other_faults(
    tmp_path: Path, error: OSError, full: bool
) -> None:
    assert is_disk_full(error) == full
    assert (disk_full(error, "a shard", 10, tmp_path) is not None) == full


@pytest.mark.parametrize(
    ("message", "needed", "full"),
    [
        ("No free disk to be used", 10, True),
        ("Failed to write", 10**18, True),
        ("Failed to write", 10, False),
    ],
)
def test_mindspores_writer_found_no_room_if_it_says_so_or_there_is_none(
    tmp_path: Path, message: str, needed: int, full: bool
) -> None:
    found = disk_full(RuntimeError(message), "a shard", needed, tmp_path)
    assert (found is not None) == full


def test_a_full_disk_is_reported_with_what_is_needed_and_free(tmp_path: Path) -> None:
    error = disk_full(OSError(errno.ENOSPC, ""), "shard 3", 6_200_000, tmp_path)
    assert re.fullmatch(
        rf"disk full: shard 3 needs 6\.2 MB, {SIZE} are free in {tmp_path}: make room, then start "
        "the same command again",
        str(error),
    )
    refused = disk_full(RuntimeError("No free disk to be used"), "shard 3", 50_000, tmp_path)
    assert "shard 3 needs 0.05 MB and MindSpore's writer 10.5 MB, " in str(refused)
    assert room(6_200_000, tmp_path).startswith("needs 6.2 MB, ")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), "an allocation was refused"),
        (MemoryError("cannot allocate array.\n\nmore"), "cannot allocate array"),
        (RuntimeError("Allocate device memory failed!\n\nstack"), "Allocate device memory failed"),
        (RuntimeError("Memory not enough: 3 GB"), "Memory not enough: 3 GB"),
    ],
)
def test_refused_memory_is_reported_with_what_the_process_held(
    error: MemoryError | RuntimeError, cause: str
) -> None:
    assert re.fullmatch(
        rf"out of memory: {cause}; the process held at most {SIZE} \(address space: "
        rf"(no limit|limit {SIZE})\): lower --batch_size or --workers, or allow more memory",
        str(memory_refused(error, options=["--batch_size", "--workers"])),
    )


def test_no_option_is_named_where_there_is_none() -> None:
    assert str(memory_refused(MemoryError())).endswith("): allow more memory")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (123, "0.000123 MB"),
        (6_200_000, "6.2 MB"),
        (1_540_000_000, "1540 MB"),
        (15_400_000_000, "15 GB"),
    ],
)
def test_sizes_are_written_without_powers_of_ten(size: int, text: str) -> None:
    assert size_text(size) == text


def test_what_needed_the_memory_is_named_once() -> None:
    with (
        pytest.raises(MemoryRefusedError, match=r"^out of memory: sample a: no room;") as caught,
        memory_for("the shard"),
        memory_for("sample a"),
    ):
        raise MemoryError("no room")
    assert memory_refused(caught.value) is caught.value


def test_another_runtime_error_is_no_refused_memory() -> None:
    assert memory_refused(RuntimeError("shapes don't match")) is None
