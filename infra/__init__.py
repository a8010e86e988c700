"""Storage and execution: artifacts, S3, launcher, doctor, deployments. Knows nothing of SKNet."""

from infra.base.interrupts import handle_while_importing

handle_while_importing(__name__)
