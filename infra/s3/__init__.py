"""Objects on S3, and on servers that speak its protocol."""

from infra.s3.attempts import BUDGET_SECONDS, Limits
from infra.s3.bucket import Bucket
from infra.s3.errors import DamagedObjectError, PreconditionError, S3Error
from infra.s3.objects import ABSENT, ANY, Expect, ListedObject, StaleUpload, StoredObject
from infra.s3.prefix import Prefix, S3Object

__all__ = [
    "ABSENT",
    "ANY",
    "BUDGET_SECONDS",
    "Bucket",
    "DamagedObjectError",
    "Expect",
    "Limits",
    "ListedObject",
    "PreconditionError",
    "Prefix",
    "S3Error",
    "S3Object",
    "StaleUpload",
    "StoredObject",
]
