"""Plain HTTP clients: one that reads answers whole or piece by piece, one that sends raw bytes."""

import contextlib
import http.client
import json
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from support.waiting import DEADLINE

Fields = Mapping[str, str]


@dataclass
class Answered:
    """A whole answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    """Asks one HTTP server, a fresh connection each time unless `kept` is used."""

    def __init__(self, port: int, headers: Fields | None = None) -> None:
        self.port = port
        self._headers = dict(headers or {})

    def get(self, path: str, headers: Fields | None = None) -> Answered:
        return self.ask("GET", path, None, headers)

    def post(
        self, path: str, body: bytes | dict[str, Any], headers: Fields | None = None
    ) -> Answered:
        return self.ask("POST", path, body, headers)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        headers: Fields | None = None,
    ) -> Answered:
        """Send a request, and read its answer to the end."""
        with self.open(method, path, body, headers) as answer:
            return whole(answer)

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        headers: Fields | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request, and give its answer once the head is there. Leaving hangs up."""
        with self.asking(method, path, body, headers) as connection:
            yield connection.getresponse()

    @contextmanager
    def asking(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        headers: Fields | None = None,
    ) -> Iterator[http.client.HTTPConnection]:
        """Send a request and do not wait. Leaving hangs up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        fields = {"content-type": "application/json"} if data is not None else {}
        try:
            connection.request(method, path, data, {**fields, **self._headers, **(headers or {})})
            yield connection
        finally:
            connection.close()


def whole(answer: http.client.HTTPResponse) -> Answered:
    """Read an answer to its end. Raises `http.client.IncompleteRead` when it was cut."""
    body = answer.read()
    fields = {name.lower(): value for name, value in answer.getheaders()}
    return Answered(answer.status, fields, body)


class Raw:
    """A bare connection, for what no client would send."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None, name: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname=name)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def reset(self) -> None:
        """Leave without a farewell."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, data: bytes) -> None:
        """Send; a connection that the other side closed meanwhile is no failure here."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def send_all(self, data: bytes) -> bool:
        """Send; whether the other side took it all."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def pieces(self, *pieces: bytes) -> None:
        """Send each as a segment of its own."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            self.send(piece)

    def answer(self, head: bool = False) -> Answered:
        """Read one answer, past interim ones; `head`: one to HEAD, which has no body."""
        line = self.line_of_status()
        while b" 100 " in line:
            assert self._file.readline() == b"\r\n"
            line = self.line_of_status()
        headers: dict[str, str] = {}
        while (field := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return Answered(int(line.split()[1]), headers, b"" if head else self._body(headers))

    def _body(self, headers: Fields) -> bytes:
        if "transfer-encoding" not in headers:
            return self._file.read(int(headers.get("content-length", "0")))
        parts = []
        while size := int(self._file.readline(), 16):
            parts.append(self._file.read(size))
            assert self._file.readline() == b"\r\n"
        assert self._file.readline() == b"\r\n"
        return b"".join(parts)

    def silent(self) -> bool:
        """Whether nothing has come so far."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(DEADLINE)
        return False

    def line_of_status(self) -> bytes:
        """Read the first line of an answer."""
        line = self._file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        return line

    def rest(self, strict: bool = False) -> bytes:
        """Read until the other side closes; `strict`: raise when it resets instead."""
        parts = []
        try:
            while part := self._file.read1(65536):
                parts.append(part)
        except ConnectionResetError:
            if strict:
                raise
        return b"".join(parts)
