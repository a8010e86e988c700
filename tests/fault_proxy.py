"""A proxy between an S3 client and its server that causes a fault at a chosen request."""

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote, urlsplit

DRIP_SECONDS = 0.02


class Fault(StrEnum):
    RESET_BEFORE = "reset-before"
    """The server doesn't receive the request."""
    RESET_AFTER = "reset-after"
    """The server acts on the request, and its answer is lost."""
    STATUS_500 = "status-500"
    """The server acts on the request, and reports that it failed."""
    SLOW_DOWN = "slow-down"
    TRUNCATED = "truncated"
    STALL = "stall"
    DRIP = "drip"
    FLIP_REQUEST = "flip-request"
    """One bit of the body is flipped, or of the path if there is no body."""
    FLIP_ANSWER = "flip-answer"
    """One bit of the body is flipped, if there is a body."""
    ERROR_BODY = "error-body"
    """The status is 200, and the body contains an error."""


@dataclass(frozen=True)
class Asked:
    """A request that arrived."""

    method: str
    path: str
    query: str


@dataclass
class Injection:
    """The requests that contain a name, in the order of their arrival, and their fault."""

    name: str
    fault: Fault | None
    at: int
    """Number of the request that has the fault, counted from 0."""
    lasting: bool
    """Whether all later requests have the fault, too."""
    requests: list[Asked] = field(default_factory=list)
    num_bytes: int = 0
    """Bytes of the bodies of the server's answers to them."""

    @property
    def hit(self) -> bool:
        """Whether the fault has been injected."""
        return self.fault is not None and len(self.requests) > self.at


@dataclass
class _Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class _Answer:
    head: bytes
    body: bytes


class FaultProxy:
    """Listens on `port` until `close`."""

    def __init__(self, target: int, listener: socket.socket | None = None) -> None:
        """Begin to listen.

        Args:
            target: The server's port on this machine.
            listener: Where to listen; None: at a free port of this machine.
        """
        self._target = target
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._injections: list[Injection] = []
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()
        self._start(self._accept)

    def inject(
        self, name: str, fault: Fault | None = None, at: int = 0, *, lasting: bool = False
    ) -> Injection:
        """Record the requests with `name` in their path, query or body; give one of them a fault.

        No name may contain another one. An earlier injection with the same name ends.
        """
        injection = Injection(name, fault, at, lasting)
        with self._lock:
            others = [other for other in self._injections if other.name != name]
            self._injections = [*others, injection]
        return injection

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.add(client)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, http.client.HTTPException):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client.makefile("rb") as incoming:
                while (request := _read(incoming, client)) is not None:
                    if not self._pass_on(request, client):
                        # Reset the connection instead of closing it in order.
                        client.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )
                        break
        with self._lock:
            self._sockets.discard(client)

    def _pass_on(self, request: _Request, client: socket.socket) -> bool:
        """Answer a request; return whether the connection can be used for another one."""
        injection, fault = self._noted(request)
        match fault:
            case Fault.RESET_BEFORE:
                return False
            case Fault.STALL:
                self._stall(client)
                return False
            case Fault.SLOW_DOWN:
                client.sendall(_error("503 Slow Down", "SlowDown", request))
                return True
            case Fault.ERROR_BODY:
                client.sendall(_error("200 OK", "InternalError", request))
                return True
            case Fault.FLIP_REQUEST:
                _flip_request(request)
        answer = self._ask(request)
        if injection is not None:
            with self._lock:
                injection.num_bytes += len(answer.body)
        match fault:
            case Fault.RESET_AFTER:
                return False
            case Fault.STATUS_500:
                client.sendall(_error("500 Internal Server Error", "InternalError", request))
                return True
            case Fault.TRUNCATED:
                whole = answer.head + answer.body
                client.sendall(whole[: len(whole) - 1 - len(answer.body) // 2])
                return False
            case Fault.FLIP_ANSWER:
                answer.body = _flipped(answer.body)
            case Fault.DRIP:
                for byte in answer.head + answer.body:
                    if self._closed.wait(DRIP_SECONDS):
                        break
                    client.sendall(bytes([byte]))
                return False
        client.sendall(answer.head + answer.body)
        return True

    def _noted(self, request: _Request) -> tuple[Injection | None, Fault | None]:
        """Record a request with the injection that has its name; return this one, and the fault."""
        text = unquote(request.target) + request.body[:2000].decode("latin-1")
        with self._lock:
            for injection in self._injections:
                if injection.name in text:
                    url = urlsplit(request.target)
                    number = len(injection.requests)
                    injection.requests.append(Asked(request.method, url.path, url.query))
                    hit = number == injection.at or (injection.lasting and number > injection.at)
                    return injection, injection.fault if hit else None
        return None, None

    def _stall(self, client: socket.socket) -> None:
        """Wait until the client gives up, or the test ends."""
        while not self._closed.wait(0.05):
            client.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                if not client.recv(1, socket.MSG_PEEK):
                    return

    def _ask(self, request: _Request) -> _Answer:
        server = http.client.HTTPConnection("127.0.0.1", self._target, timeout=60)
        try:
            server.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers:
                server.putheader(name, value)
            server.endheaders(request.body or None)
            answer = server.getresponse()
            body = answer.read()
        finally:
            server.close()
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                lines.append(f"{name}: {value}")
        # The answer to HEAD has a length but no body.
        length = answer.getheader("Content-Length") or str(len(body))
        lines.append(f"Content-Length: {length}")
        return _Answer("\r\n".join([*lines, "", ""]).encode("latin-1"), body)


@contextlib.contextmanager
def running_proxy(target: int) -> Iterator[FaultProxy]:
    proxy = FaultProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()


def _read(incoming: object, client: socket.socket) -> _Request | None:
    line = incoming.readline().decode("latin-1")  # type: ignore[attr-defined]
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    headers: list[tuple[str, str]] = []
    for name, value in http.client.parse_headers(incoming).items():  # type: ignore[arg-type]
        if name.lower() == "expect":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        else:
            headers.append((name, value))
    length = int(next((value for name, value in headers if name.lower() == "content-length"), 0))
    return _Request(method, target, headers, incoming.read(length))  # type: ignore[attr-defined]


def _flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[len(changed) // 2] ^= 1
    return bytes(changed)


def _flip_request(request: _Request) -> None:
    if request.body:
        request.body = _flipped(request.body)
    else:
        path, mark, query = request.target.partition("?")
        request.target = path[:-1] + chr(ord(path[-1]) ^ 1) + mark + query


def _error(status: str, code: str, request: _Request) -> bytes:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        "<Message>an injected fault</Message></Error>"
    )
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return (head + "\r\n" + (body if request.method != "HEAD" else "")).encode()
