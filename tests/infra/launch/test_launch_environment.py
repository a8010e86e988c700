"""The table of time limits: ranks get it, a page shows it, and its values fit together."""

import re
from pathlib import Path

from infra.launch.environment import TIMEOUTS, rank_environment, seconds, timeout_variables
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
