"""Objects of S3 and of servers that speak its protocol."""

from infra.s3.prefix import Prefix, S3Error, S3Object

__all__ = ["Prefix", "S3Error", "S3Object"]
