"""Proxies that make the test's S3 server answer as other servers are documented to answer.

docs/artifacts.md names the source of each difference. A proxy signs each request again, so that it
can take headers away.
"""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from infra.s3 import STANDARD
from infra.s3.server import REGION, RunningServer

CONDITIONS = ("if-match", "if-none-match")
OF_AN_ANSWER = ("connection", "transfer-encoding", "content-length", "date")
"""Headers that the proxy writes itself into an answer."""
OF_THIS_HOP = ("authorization", "connection", "content-length", "expect", "host", "x-amz-date")
"""Headers of a request that the proxy writes itself."""
RACE_SECONDS = 0.05
"""Between the look at a key and the write, on a server that doesn't do both at once."""


@dataclass
class Asked:
    """A request that arrived."""

    method: str
    target: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def is_put(self) -> bool:
        return self.method == "PUT" and not self.query

    @property
    def is_completion(self) -> bool:
        return self.method == "POST" and "uploadId" in self.query

    @property
    def is_bulk_deletion(self) -> bool:
        return self.method == "POST" and "delete" in self.query

    @property
    def is_conditional(self) -> bool:
        return any(name in self.headers for name in CONDITIONS)

    @property
    def has_sdk_sum(self) -> bool:
        return any(
            name.startswith(("x-amz-checksum-", "x-amz-sdk-checksum-", "x-amz-trailer"))
            for name in self.headers
        )

    def drop(self, *beginnings: str) -> None:
        self.headers = {n: v for n, v in self.headers.items() if not n.startswith(beginnings)}


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def refusal(cls, status: int, code: str, message: str) -> "Answer":
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return cls(status, body.encode(), [("Content-Type", "application/xml")])


Ask = Callable[[Asked], Answer]
"""Sends a request to the real server."""


def like_obs(asked: Asked, ask: Ask) -> Answer:
    """Refuses the checksums of SDKs, wants an MD5 with a bulk deletion, knows no conditions."""
    if asked.has_sdk_sum:
        return Answer.refusal(400, "XAmzContentSHA256Mismatch", "does not match what was computed")
    if asked.is_bulk_deletion and "content-md5" not in asked.headers:
        return Answer.refusal(400, "InvalidRequest", "Missing required header: Content-MD5")
    if asked.is_put or asked.is_completion:
        asked.drop(*CONDITIONS)
    return ask(asked)


def like_minio(asked: Asked, ask: Ask) -> Answer:
    """Writes an absent key whatever `If-Match` says, and wants an MD5 with a bulk deletion.

    It knows no conditions of CompleteMultipartUpload, and lists no uploads below a prefix.
    """
    if asked.method == "GET" and "uploads" in asked.query:
        return Answer(
            200,
            b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
        )
    if asked.is_bulk_deletion and "content-md5" not in asked.headers:
        return Answer.refusal(400, "MissingContentMD5", "Missing required header: Content-Md5.")
    if asked.is_completion:
        asked.drop(*CONDITIONS)
    elif asked.is_put and "if-match" in asked.headers and ask(_head(asked)).status == 404:
        asked.drop("if-match")
        asked.headers["if-none-match"] = "*"
    return ask(asked)


def like_ceph(asked: Asked, ask: Ask) -> Answer:
    """Takes the quotation marks of an ETag in `If-Match` of PutObject for a part of it.

    Answers 412 to `If-Match` on an absent key, ignores the conditions of CompleteMultipartUpload
    and the checksums of SDKs.
    """
    if asked.method in ("PUT", "POST") and not asked.is_bulk_deletion:
        asked.drop("x-amz-checksum-", "x-amz-sdk-checksum-")
    if asked.is_completion:
        asked.drop(*CONDITIONS)
    if not asked.is_put or "if-match" not in asked.headers:
        return ask(asked)
    bare = asked.headers["if-match"]
    asked.headers["if-match"] = f'"{bare}"'
    answer = ask(asked) if '"' not in bare else None
    if answer is None or answer.status == 404:
        return Answer.refusal(412, "PreconditionFailed", "a condition does not hold")
    return answer


def like_b2(asked: Asked, ask: Ask) -> Answer:
    """Refuses conditions of writes, and the checksums of SDKs."""
    if asked.has_sdk_sum:
        return Answer.refusal(400, "InvalidArgument", "Unsupported header received for this call")
    if asked.method in ("PUT", "POST") and asked.is_conditional:
        return Answer.refusal(
            501, "NotImplemented", "A header you provided implies functionality not implemented"
        )
    return ask(asked)


def conflicting(asked: Asked, ask: Ask) -> Answer:
    """Answers 409 where a condition of a write does not hold, as AWS does if writers meet."""
    answer = ask(asked)
    if asked.method in ("PUT", "POST") and asked.is_conditional and answer.status in (404, 412):
        return Answer.refusal(409, "ConditionalRequestConflict", "a conflicting operation occurred")
    return answer


def heedless(asked: Asked, ask: Ask) -> Answer:
    """Accepts all conditions and checksums of writes, and ignores them."""
    if asked.method in ("PUT", "POST"):
        if not asked.is_bulk_deletion:
            asked.drop("x-amz-checksum-", "x-amz-sdk-checksum-", "content-md5")
        asked.drop(*CONDITIONS)
    return ask(asked)


def racy(asked: Asked, ask: Ask) -> Answer:
    """Looks whether a condition of a write holds, and writes some time later."""
    conditions = {name: asked.headers[name] for name in CONDITIONS if name in asked.headers}
    if not asked.is_put or not conditions:
        return ask(asked)
    found = ask(_head(asked))
    etag = {name.lower(): value for name, value in found.headers}.get("etag")
    holds = found.status == 404 if "if-none-match" in conditions else etag in conditions.values()
    if not holds:
        return Answer.refusal(412, "PreconditionFailed", "a condition does not hold")
    time.sleep(RACE_SECONDS)
    asked.drop(*CONDITIONS)
    return ask(asked)


Behaviour = Callable[[Asked, Ask], Answer]
"""Answers a request, mostly by what the real server answers."""

IMITATIONS: dict[str, Behaviour] = {
    "OBS": like_obs,
    "MinIO": like_minio,
    "Ceph": like_ceph,
    "B2": like_b2,
    "conflicting": conflicting,
    "heedless": heedless,
    "racy": racy,
}


_NO_SDK_SUMS = {"put_sum": "md5", "part_sum": "md5", "bulk_delete": False}
_DIFFERENCES: dict[str, dict[str, Any]] = {
    "OBS": {
        **_NO_SDK_SUMS,
        "create": "ignored",
        "replace": "ignored",
        "complete": "ignored",
        "replace_absent": "written",
    },
    "MinIO": {"replace_absent": "written", "complete": "ignored", "bulk_delete": False},
    "Ceph": {"etags": "bare", "complete": "ignored", "put_sum": "md5", "part_sum": "md5"},
    "B2": {
        **_NO_SDK_SUMS,
        "create": "refused",
        "replace": "refused",
        "complete": "refused",
        "replace_absent": "unclear",
    },
    "conflicting": {"replace_absent": "unclear"},
    "heedless": {
        "create": "ignored",
        "replace": "ignored",
        "complete": "ignored",
        "replace_absent": "written",
        "put_sum": "none",
        "part_sum": "none",
    },
    "racy": {"create": "not atomic", "replace": "not atomic"},
}
"""Name of each server → in what its profile differs from that of AWS."""

PROFILES = {name: STANDARD.model_copy(update=each) for name, each in _DIFFERENCES.items()}
"""Name of each server → what the probe has to find."""


def _head(asked: Asked) -> Asked:
    return Asked("HEAD", asked.target, {}, b"")


@contextlib.contextmanager
def imitating(behave: Behaviour, server: RunningServer) -> Iterator[str]:
    """Yield the address of a proxy that behaves so in front of a server."""
    credentials = Credentials(server.access_key, server.secret_key)

    def ask(asked: Asked) -> Answer:
        url = f"http://127.0.0.1:{server.port}{asked.target}"
        request = AWSRequest(asked.method, url, asked.headers, asked.body)
        S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        with contextlib.closing(connection):
            headers = {**request.headers, "Content-Length": str(len(asked.body))}
            connection.request(asked.method, asked.target, asked.body or None, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), answer.getheaders())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            headers = {n.lower(): v for n, v in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            headers = {n: v for n, v in headers.items() if n not in OF_THIS_HOP}
            answer = behave(Asked(self.command, self.path, headers, body), ask)
            self.send_response_only(answer.status)
            kept = [(n, v) for n, v in answer.headers if n.lower() not in OF_AN_ANSWER]
            # The answer to HEAD has a length, but no body.
            length = dict(answer.headers).get("Content-Length") if self.command == "HEAD" else None
            for each in [*kept, ("Content-Length", length or str(len(answer.body)))]:
                self.send_header(*each)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 (http.server calls these names)

        def log_message(self, *_: Any) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
