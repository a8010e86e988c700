"""Small control groups of a test's own, for processes that are to run out of memory."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MOUNT = Path("/sys/fs/cgroup")


@contextmanager
def small_group(num_bytes: int) -> Iterator[Path]:
    """A group below this process's that may hold so much, or a skipped test with the reason.

    A process that writes its id into the group's `cgroup.procs` is in it from then on.
    """
    try:
        group = _parent() / f"sknet-test-{uuid.uuid4().hex[:8]}"
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        try:
            for name in ("memory.max", "memory.limit_in_bytes"):
                if (group / name).exists():
                    (group / name).write_text(str(num_bytes))
                    break
            else:
                pytest.skip("control groups below this one have no memory controller")
            # Not to the disk instead, if there is any to swap to.
            if (group / "memory.swap.max").exists():
                (group / "memory.swap.max").write_text("0")
        except OSError as error:
            pytest.skip(f"the control group takes no limit: {error}")
        yield group
    finally:
        group.rmdir()


def _parent() -> Path:
    for line in Path("/proc/self/cgroup").read_text("ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return MOUNT / "memory" / path.strip("/")
    return MOUNT / path.strip("/")
