"""Backends of the file: addresses, credentials, trust, and processes to launch."""

import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config import shape
from gateway.config.problems import Problems
from gateway.config.values import address
from gateway.types import TLS, Backend, Form, Headers, Launch

Keys = Mapping[str, Form]
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_RESERVED = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_LOOPBACK = "127.0.0.1"
_GRPC = "grpc"


class BackendBuilder:
    """Builds pools of backends; what the gateway must launch for them gathers in `launches`."""

    def __init__(self, problems: Problems, free_port: Callable[[], int]) -> None:
        self.launches: list[Launch] = []
        self._problems = problems
        self._free_port = free_port

    def pool(
        self,
        place: tuple[str | int, ...],
        name: str,
        entries: list[shape.Backend],
        adapter: str,
        keys: Keys,
    ) -> tuple[Backend, ...]:
        """Build the backends of one version, of a kind that takes the address `keys`."""
        pool: dict[str, Backend] = {}
        for index, entry in enumerate(entries):
            here = (*place, index)
            backend = self._backend(here, f"{name}-{index + 1}", entry, adapter, keys)
            if backend.id in pool:
                self._problems.say(here, f"{backend.id} stands in this list already")
            pool[backend.id] = backend
        return tuple(pool.values())

    def _backend(
        self,
        place: tuple[str | int, ...],
        name: str,
        entry: shape.Backend,
        adapter: str,
        keys: Keys,
    ) -> Backend:
        if entry.launch is not None:
            found = self._launched(place, name, entry, keys)
        else:
            found = self._found(place, entry, keys)
        return Backend(
            id=next(iter(found.values()), name),
            adapter=adapter,
            addresses={keys[key]: value for key, value in found.items()},
            headers=self._headers(place, entry),
            tls=self._tls(place, entry.tls),
        )

    def _found(
        self, place: tuple[str | int, ...], entry: shape.Backend, keys: Keys
    ) -> dict[str, str]:
        wanted = " or ".join(sorted(keys))
        found = {}
        for key in ("url", "rest", "grpc"):
            value = getattr(entry, key)
            if value is None:
                continue
            if key not in keys:
                self._problems.say((*place, key), f"is not for this adapter; it takes {wanted}")
                continue
            check = _check_grpc if key == _GRPC else _check_url
            why = check(value)
            if why:
                self._problems.say((*place, key), why)
            found[key] = value.rstrip("/")
        if not found:
            self._problems.say(place, f"needs an address ({wanted}) or a process to launch")
        return found

    def _launched(
        self, place: tuple[str | int, ...], name: str, entry: shape.Backend, keys: Keys
    ) -> dict[str, str]:
        launch = entry.launch
        assert launch is not None  # noqa: S101 - the caller looked
        for key in ("url", "rest", "grpc"):
            if getattr(entry, key) is not None:
                self._problems.say((*place, key), "comes from launch; leave one of the two out")
        ports = {"port": self._port(launch.port)}
        if launch.grpc_port is not None:
            ports["grpc_port"] = self._port(launch.grpc_port)
        command = tuple(
            self._filled(place, i, part, ports) for i, part in enumerate(launch.command)
        )
        base = f"http://{_LOOPBACK}:{ports['port']}"
        self.launches.append(
            Launch(
                name=name.replace("/", "_"),
                command=command,
                log=Path(launch.log or f"logs/{name.replace('/', '_')}.log"),
                env=launch.env,
                ready_url=base + launch.ready,
                start_timeout=launch.start_timeout,
                stop_grace=launch.stop_grace,
            )
        )
        found = {key: base for key in keys if key != _GRPC}
        if _GRPC in keys and "grpc_port" in ports:
            found[_GRPC] = f"{_LOOPBACK}:{ports['grpc_port']}"
        return found

    def _port(self, wanted: str | int) -> int:
        return self._free_port() if isinstance(wanted, str) else wanted

    def _filled(
        self, place: tuple[str | int, ...], index: int, part: str, ports: Mapping[str, int]
    ) -> str:
        here = (*place, "launch", "command", index)
        try:
            names = {name for _, name, _, _ in string.Formatter().parse(part) if name}
        except ValueError:
            return part  # braces that are no placeholders, as in JSON
        if "grpc_port" in names and "grpc_port" not in ports:
            self._problems.say(here, "uses {grpc_port}: add grpc_port: auto to launch")
        for name, port in ports.items():
            part = part.replace(f"{{{name}}}", str(port))
        return part

    def _headers(self, place: tuple[str | int, ...], entry: shape.Backend) -> Headers:
        fields = {name.lower(): value for name, value in entry.headers.items()}
        if entry.api_key is not None:
            fields["authorization"] = f"Bearer {entry.api_key}"
        for name, value in fields.items():
            sent = value.isascii() and value.isprintable() and _HEADER_NAME.fullmatch(name)
            if not sent or name in _RESERVED:
                key = "api_key" if name == "authorization" and entry.api_key else "headers"
                self._problems.say(
                    (*place, key),
                    f"{name!r} can't be sent: a reserved name, or "
                    "characters that no header may hold",
                )
        return tuple((name.encode(), value.encode()) for name, value in fields.items())

    def _tls(self, place: tuple[str | int, ...], entry: shape.TLS | None) -> TLS | None:
        if entry is None:
            return None
        paths = {
            key: Path(value) for key in ("ca", "cert", "key") if (value := getattr(entry, key))
        }
        for key, path in paths.items():
            if not path.is_file():
                self._problems.say((*place, "tls", key), f"there is no file {path}")
        if ("cert" in paths) != ("key" in paths):
            self._problems.say((*place, "tls"), "cert and key go together")
        return TLS(**paths, server_name=entry.server_name)


def _check_url(value: str) -> str | None:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        return f"{value!r} is no URL: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"{value!r} is no URL like http://HOST:PORT or https://HOST:PORT"
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        return f"{value!r} must be scheme, host and port alone; credentials go into api_key"
    return "port 0 can't be reached" if port == 0 else None


def _check_grpc(value: str) -> str | None:
    try:
        return "port 0 can't be reached" if address(value).port == 0 else None
    except ValueError as error:
        return str(error)
