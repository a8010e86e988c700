"""Errors and other answers of S3, and which failed requests are worth repeating."""

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
_TEMPORARY = {
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
NOT_IMPLEMENTED = 501
_CONNECTION = (
    NoConnectionError,
    HTTPClientError,
    HTTPError,
    IncompleteReadError,
    ResponseParserError,
    ConnectionError,
    TimeoutError,
)
# What TLS libraries say of an answer that isn't TLS, such as that of a server that speaks http.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_SECRET = re.compile(
    r"(?i)((?:signature|x-amz-security-token|x-amz-credential)\s*[=:]\s*)[^&,\s\"']+"
)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")


class S3Error(OSError):
    """S3 refused, or could not be reached; `strerror` gives the reason in one line."""


class PreconditionError(S3Error):
    """A conditional write found another object than expected, or none.

    Attributes:
        etag: The ETag of the object that was found; None if there was none.
    """

    def __init__(self, number: int, message: str, etag: str | None) -> None:
        super().__init__(number, message)
        self.etag = etag

    @classmethod
    def found(cls, problem: str, etag: str | None) -> "PreconditionError":
        """Return the error of a write that found an object with this ETag, or none."""
        if etag is None:
            return cls(errno.ENOENT, f"{problem}: it is no longer there", None)
        return cls(errno.EEXIST, f"{problem}: another object is there, with ETag {etag}", etag)


class DamagedObjectError(S3Error):
    """The stored object is not the expected one, and a second request confirmed it."""


class Absent(Exception):  # noqa: N818 (an answer, not a failure)
    """There is no such object."""


class ConditionFailed(Exception):  # noqa: N818 (an answer, not a failure)
    """The condition of a write does not hold, perhaps because an earlier attempt succeeded."""


class UploadGone(Exception):  # noqa: N818 (an answer, not a failure)
    """There is no such multipart upload: it was completed or aborted."""


class TooLarge(Exception):  # noqa: N818 (an answer, not a failure)
    """An object is larger than the limit, and was not read."""

    def __init__(self, size: int, etag: str) -> None:
        super().__init__(size, etag)
        self.size = size
        self.etag = etag


class AnswerError(Exception):
    """An answer contradicts the protocol, or what is known of the object."""


class Retry(Enum):
    """How often a failed request is repeated."""

    UNTIL_BUDGET_ENDS = 1
    A_FEW_TIMES = 2
    """A flipped bit may be the reason, but hardly several times in a row."""
    NEVER = 3
    OF_CONFLICT = 4
    """A few times: another write was under way. After that, the condition counts as failed."""


def retry_of(error: Exception) -> Retry:
    """Return how often the request that failed with this error is worth repeating.

    Raises:
        Absent: The error means that there is no such object.
        ConditionFailed: It means that a condition does not hold.
        UploadGone: It means that there is no such multipart upload.
        Exception: The error itself, if it doesn't come from S3 or the connection.
    """
    if isinstance(error, ClientError):
        return _retry_of_refusal(error)
    if isinstance(error, SSLError) and _UNTRUSTED in str(error):
        return Retry.NEVER
    if _is_without_tls(error):
        return Retry.A_FEW_TIMES
    # botocore raises ValueError for a field that it can't parse.
    if isinstance(error, AnswerError | FlexibleChecksumError | ValueError):
        return Retry.A_FEW_TIMES
    if isinstance(error, _CONNECTION):
        return Retry.UNTIL_BUDGET_ENDS
    if isinstance(error, BotoCoreError):
        return Retry.NEVER
    raise error


def _retry_of_refusal(error: ClientError) -> Retry:
    code = error.response["Error"].get("Code", "")
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    match code:
        case "NoSuchUpload":
            raise UploadGone from None
        case "NoSuchKey":
            raise Absent from None
        case "404":  # the answer to HEAD has no body that could name what is missing
            raise Absent from None
        case "PreconditionFailed" | "412":
            raise ConditionFailed from None
        case "NotImplemented":
            return Retry.A_FEW_TIMES
        case "ConditionalRequestConflict" | "ObjectAlreadyExists" | "FileAlreadyExists":
            return Retry.OF_CONFLICT
    return Retry.UNTIL_BUDGET_ENDS if _is_temporary(code, status) else Retry.A_FEW_TIMES


def is_of_request(error: ClientError) -> bool:
    """Tell whether a server refuses what a request asks for, so that it refuses it always.

    Otherwise the server is busy, or refuses the user or the bucket.
    """
    code = error.response["Error"].get("Code", "")
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    is_of_user = status in (401, 403) or code == "NoSuchBucket"
    return not (_is_temporary(code, status) or is_of_user)


def _is_temporary(code: str, status: int) -> bool:
    """Tell whether a later request may succeed, as the server is busy or broken."""
    is_of_server = status >= 500 and status != NOT_IMPLEMENTED
    return code in _TEMPORARY or status in (408, 429) or is_of_server


def error_number(error: Exception) -> int:
    """Return the errno that a file system would give; 0 where there is none.

    EAGAIN says that S3 is busy, broken, or can't be reached, which may pass.
    """
    if isinstance(error, ClientError):
        code = error.response["Error"].get("Code", "")
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        return errno.EAGAIN if _is_temporary(code, status) else _NUMBERS.get(code, 0)
    is_wrong = isinstance(error, SSLError) and _UNTRUSTED in str(error)
    is_passing = isinstance(error, _CONNECTION) and not (is_wrong or _is_without_tls(error))
    return errno.EAGAIN if is_passing else 0


def reason(error: Exception) -> str:
    """Return one line without secrets that ends with advice, if there is any."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"{error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if _is_without_tls(error):
        return redacted(
            f"{error}; the server does not speak https on this port: write http:// into "
            "AWS_ENDPOINT_URL_S3, or the port on which it does"
        )
    if isinstance(error, SSLError) and _UNTRUSTED in str(error):
        return redacted(f"{error}; AWS_CA_BUNDLE names the certificates to trust")
    code = error.response["Error"].get("Code", "") if isinstance(error, ClientError) else ""
    advice = f"; {_ADVICE[code]}" if code in _ADVICE else ""
    message = str(error).replace(" (reached max retries: 0)", "") or type(error).__name__
    return redacted(message) + advice


def _is_without_tls(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, SSLError) and any(name in text for name in _NO_TLS)


def redacted(text: str) -> str:
    """Return the text in one line, without signatures, tokens and user information of URLs."""
    return _USER_INFO.sub("", _SECRET.sub(r"\1…", " ".join(text.split())))
