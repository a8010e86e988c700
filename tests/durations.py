"""Seconds of each test file, from what pytest prints with --durations=0.

make test PYTEST_OPTIONS=--durations=0 > LOG
python -m tests.durations LOG > docs/internals/test-durations.txt

Pytest lists tests of 5 ms and more. Setup counts for the test that needed a fixture first.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

LINE = re.compile(r"^([\d.]+)s (?:call|setup|teardown) +(?:tests/)?(\S+?)::(.+?)(?:@\S+)?$")


def condense(log: str) -> str:
    """Return a line for each file with its seconds and its number of tests, longest first."""
    seconds: dict[str, float] = defaultdict(float)
    tests: dict[str, set[str]] = defaultdict(set)
    for line in log.splitlines():
        if match := LINE.match(line):
            file, test = match[2], match[3]
            seconds[file] += float(match[1])
            tests[file].add(test)
    lines = [
        f"{seconds[file]:8.1f} s {len(tests[file]):5d} tests  {file}"
        for file in sorted(seconds, key=lambda file: -seconds[file])
    ]
    total = f"{sum(seconds.values()):8.1f} s {sum(map(len, tests.values())):5d} tests  in all"
    return "\n".join([total, *lines]) + "\n"


if __name__ == "__main__":
    print(condense("\n".join(Path(log).read_text("utf-8") for log in sys.argv[1:])), end="")
