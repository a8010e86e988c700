"""What S3 refuses, and which failures another try may end otherwise."""

import errno
import re
from enum import Enum

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as NoConnectionError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

_NUMBERS = {
    "NoSuchKey": errno.ENOENT,
    "NoSuchBucket": errno.ENOENT,
    "AccessDenied": errno.EACCES,
}
_ADVICE = {
    "NoSuchBucket": "create the bucket, or correct its name or AWS_ENDPOINT_URL_S3",
    "AccessDenied": "the credentials don't allow this: see infra/s3 for the policy that is needed",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL_S3",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION",
    "ExpiredToken": "get new credentials",
    "RequestTimeTooSkewed": "set this machine's clock",
    "BadDigest": "the bytes were damaged on the way, or the file changed",
}
_LATER = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_SECRET = re.compile(
    r"(?i)((?:signature|x-amz-security-token|x-amz-credential)\s*[=:]\s*)[^&,\s\"']+"
)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")


class S3Error(OSError):
    """S3 refused, or could not be reached; `strerror` says why in one line."""


class PreconditionError(S3Error):
    """A conditional write found something else than expected."""

    def __init__(self, number: int, message: str, etag: str | None) -> None:
        super().__init__(number, message)
        self.etag = etag
        """Of what was found; None if there was nothing."""

    @classmethod
    def found(cls, what: str, etag: str | None) -> "PreconditionError":
        """When a write that would have done `what` found something else than it expected."""
        if etag is None:
            return cls(errno.ENOENT, f"{what}: it is not there any longer", None)
        return cls(errno.EEXIST, f"{what}: another object is there, with ETag {etag}", etag)


class DamagedObjectError(S3Error):
    """What is stored is not what was expected, at a second look too."""


class Absent(Exception):  # noqa: N818 (an answer, not a failure)
    """There is no such object."""


class ConditionFailed(Exception):  # noqa: N818 (an answer, not a failure)
    """A precondition was refused: maybe by what an earlier try of the same write left."""


class UploadGone(Exception):  # noqa: N818 (an answer, not a failure)
    """The multipart upload is over: completed, aborted or swept."""


class TooLarge(Exception):  # noqa: N818 (an answer, not a failure)
    """An object is larger than what was asked for, and was not read."""

    def __init__(self, size: int, etag: str) -> None:
        super().__init__(size, etag)
        self.size = size
        self.etag = etag


class AnswerError(Exception):
    """An answer isn't what the protocol, or what is known of the object, promises."""


class Again(Enum):
    """Whether a failed request is worth another try."""

    UNTIL_THE_BUDGET_ENDS = 1
    A_FEW_TIMES = 2
    """One flipped bit explains it; a second one in a row is unlikely."""
    NEVER = 3


def judge(error: Exception) -> Again:
    """Raises Absent, ConditionFailed or UploadGone for what is no failure, and what isn't S3's."""
    if isinstance(error, ClientError):
        return _judge_refusal(error)
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Again.NEVER
    # botocore raises ValueError for a field that it can't parse.
    if isinstance(error, AnswerError | FlexibleChecksumError | ValueError):
        return Again.A_FEW_TIMES
    if isinstance(error, _CONNECTION):
        return Again.UNTIL_THE_BUDGET_ENDS
    if isinstance(error, BotoCoreError):
        return Again.NEVER
    raise error


_CONNECTION = (
    NoConnectionError,
    HTTPClientError,
    HTTPError,
    IncompleteReadError,
    ResponseParserError,
    ConnectionError,
    TimeoutError,
)


def _judge_refusal(error: ClientError) -> Again:
    code = error.response["Error"].get("Code", "")
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    match code:
        case "NoSuchUpload":
            raise UploadGone from None
        case "NoSuchKey":
            raise Absent from None
        case "404":  # the answer to HEAD has no body that could say what is missing
            raise Absent from None
        case "PreconditionFailed" | "412":
            raise ConditionFailed from None
        case "NotImplemented":
            return Again.A_FEW_TIMES
    if code in _LATER or status >= 500 or status in (408, 429):
        return Again.UNTIL_THE_BUDGET_ENDS
    return Again.A_FEW_TIMES


def number(error: Exception) -> int:
    """The number that a file system would give, 0 where another try may end otherwise."""
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    return _NUMBERS.get(code, 0)


def reason(error: Exception) -> str:
    """One line without secrets, with what can be done about it where that is known."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"{error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, SSLError):
        return redacted(f"{error}; AWS_CA_BUNDLE names the certificates to trust")
    code = error.response["Error"].get("Code", "") if isinstance(error, ClientError) else ""
    advice = f"; {_ADVICE[code]}" if code in _ADVICE else ""
    said = str(error).replace(" (reached max retries: 0)", "") or type(error).__name__
    return redacted(said) + advice


def redacted(text: str) -> str:
    """In one line, without signatures, tokens and passwords in URLs."""
    return _USER_INFO.sub("", _SECRET.sub(r"\1…", " ".join(text.split())))
