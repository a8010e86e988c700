"""Storage and execution: artifacts, S3, launcher, doctor, deployments. Knows nothing of SKNet."""

import sys

from infra.base.interrupts import handle_while_importing

if sys.argv[0] == "-m":  # Python is about to import a command
    handle_while_importing()
