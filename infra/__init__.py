"""Storage and execution: artifacts, S3, launcher, doctor, deployments. Knows nothing of SKNet."""
