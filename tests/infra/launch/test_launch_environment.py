"""The table of time limits: ranks get it, a page shows it, and its values fit together.

And the variables that ranks on other hosts get too.
"""

import re
import socket
from pathlib import Path

import psutil
import pytest

from infra.launch.environment import (
    TIMEOUTS,
    is_foreign_address,
    rank_environment,
    seconds,
    timeout_variables,
    travelling_environment,
)
from infra.launch.gang import OUTCOME_SECONDS
from infra.launch.supervisor import GRACE_SECONDS
from sknet.training.watchdog import FALLBACK_SECONDS, FLOOR_SECONDS
from tasks.programs import SILENCE_SECONDS
from tasks.results import RETRY_SECONDS

PAGE = Path(__file__).resolve().parents[3] / "docs/clusters.md"


def test_the_page_shows_the_table() -> None:
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| (.+?) \| (.+) \|$", PAGE.read_text("utf-8"), re.M)
    assert rows == [
        (row.name, f"{row.seconds:g}", row.read_by, row.reason) for row in TIMEOUTS.values()
    ]


def test_ranks_get_the_variables_of_the_table() -> None:
    variables = timeout_variables()
    assert {"MS_NODE_TIMEOUT", "MS_CPU_COMM_OP_TIMEOUT", "HCCL_EXEC_TIMEOUT"} <= variables.keys()
    assert variables.items() <= rank_environment(1, {}).items()


def test_limits_that_depend_on_each_other_fit_together() -> None:
    assert seconds("MS_HEARTBEAT_RETRY_TIMEOUT") < seconds("MS_NODE_TIMEOUT")
    assert seconds("host_silence") < seconds("caller_silence") < 30
    watchdog_ends = FLOOR_SECONDS + FALLBACK_SECONDS
    assert watchdog_ends < min(seconds("MS_CPU_COMM_OP_TIMEOUT"), seconds("HCCL_EXEC_TIMEOUT"))
    assert watchdog_ends < SILENCE_SECONDS
    # The ranks of a cut-off host have ended before a retry starts others on their checkpoints.
    cut_off_ranks_end = seconds("caller_silence") + GRACE_SECONDS
    retry_starts = seconds("host_silence") + OUTCOME_SECONDS + min(RETRY_SECONDS)
    assert cut_off_ranks_end < retry_starts


def test_the_page_names_the_variables_that_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE.read_text("utf-8")
    section = re.search(r"^## Variables\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    assert section is not None
    named = set(re.findall(r"^\| `([A-Za-z_]+)` \|", section[1], re.MULTILINE))
    for name in (*named, "MS_ASCEND_ANYTHING", "ASCEND_HOME_PATH"):
        monkeypatch.setenv(name, "1")
    sent = travelling_environment().keys() - timeout_variables().keys()
    assert sent == named | {"MS_ASCEND_ANYTHING"}


def test_an_address_is_foreign_unless_an_interface_of_this_host_has_it() -> None:
    assert is_foreign_address("192.0.2.1")  # for documentation only (RFC 5737)
    assert is_foreign_address("not an address")
    assert not is_foreign_address("127.0.0.1")
    own = [each for found in psutil.net_if_addrs().values() for each in found]
    for address in (each.address for each in own if each.family == socket.AF_INET6):
        assert not is_foreign_address(address.upper().partition("%")[0])
