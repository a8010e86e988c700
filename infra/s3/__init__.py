"""Objects on S3, and on servers that speak its protocol."""

from infra.s3.attempts import BUDGET_SECONDS, Limits
from infra.s3.bucket import Bucket
from infra.s3.errors import DamagedObjectError, PreconditionError, S3Error
from infra.s3.objects import ABSENT, ANY, Expect, ListedObject, StaleUpload, StoredObject
from infra.s3.prefix import Prefix, S3Object
from infra.s3.probe import SCRATCH
from infra.s3.profile import STANDARD, Guarantee, Profile
from infra.s3.writing import Writing

__all__ = [
    "ABSENT",
    "ANY",
    "BUDGET_SECONDS",
    "SCRATCH",
    "STANDARD",
    "Bucket",
    "DamagedObjectError",
    "Expect",
    "Guarantee",
    "Limits",
    "ListedObject",
    "PreconditionError",
    "Prefix",
    "Profile",
    "S3Error",
    "S3Object",
    "StaleUpload",
    "StoredObject",
    "Writing",
]
