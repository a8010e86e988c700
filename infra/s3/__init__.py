"""Objects of S3 and of servers that speak its protocol."""

from infra.s3.attempts import BUDGET_SECONDS, Limits
from infra.s3.bucket import Bucket
from infra.s3.errors import DamagedObjectError, PreconditionError, S3Error
from infra.s3.objects import ABSENT, ANY, Expect, Listed, StaleUpload, Stored
from infra.s3.prefix import Prefix, S3Object

__all__ = [
    "ABSENT",
    "ANY",
    "BUDGET_SECONDS",
    "Bucket",
    "DamagedObjectError",
    "Expect",
    "Limits",
    "Listed",
    "PreconditionError",
    "Prefix",
    "S3Error",
    "S3Object",
    "StaleUpload",
    "Stored",
]
