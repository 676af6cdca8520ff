"""Plain HTTP clients: one that reads answers whole or piece by piece, one that sends raw bytes."""

import contextlib
import http.client
import json
import socket
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

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send; a connection that the other side closed meanwhile is no failure here."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def answer(self) -> Answered:
        """Read one answer that is framed by its length."""
        line = self.line_of_status()
        headers: dict[str, str] = {}
        while (field := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = self._file.read(int(headers.get("content-length", "0")))
        return Answered(int(line.split()[1]), headers, body)

    def silent(self) -> bool:
        """Whether nothing has come so far."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(DEADLINE)
        return False

    def line_of_status(self) -> bytes:
        """Read the first line of an answer."""
        line = self._file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        return line

    def rest(self) -> bytes:
        """Read until the other side closes."""
        parts = []
        try:
            while part := self._file.read1(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)
