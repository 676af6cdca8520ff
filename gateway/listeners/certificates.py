"""The data plane's own certificates: loaded, watched, and loaded again when they change."""

import ssl
from pathlib import Path

from gateway.errors import ConfigError
from gateway.types import ServerTLS


class Certificates:
    """The files of `server.tls`, for every listener that shows them. Raises `ConfigError`."""

    def __init__(self, tls: ServerTLS) -> None:
        self.tls = tls
        self.context()
        self._stamp = self.stamp()

    def context(self) -> ssl.SSLContext:
        """Load them. Raises `ConfigError`."""
        tls = self.tls
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(str(tls.cert), str(tls.key))
            if tls.client_ca is not None:
                context.load_verify_locations(str(tls.client_ca))
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise ConfigError((f"server.tls: can't be loaded: {error}",)) from None
        return context

    def renewed(self) -> ssl.SSLContext | None:
        """Return them loaded anew if they changed since this was last asked, else None.

        Files that are being written, or do not fit each other, are looked at again next time.
        """
        stamp = self.stamp()
        if stamp == self._stamp:
            return None
        try:
            context = self.context()
        except ConfigError:
            return None
        self._stamp = stamp
        return context

    def pem(self) -> tuple[bytes, bytes, bytes | None] | None:
        """Return the key, the certificate and the clients' authorities, if they fit each other.

        What is checked is what is on disk: None too where that changed between two looks.
        """
        tls, stamp = self.tls, self.stamp()
        try:
            authorities = tls.client_ca.read_bytes() if tls.client_ca else None
            found = tls.key.read_bytes(), tls.cert.read_bytes(), authorities
            self.context()
        except (OSError, ConfigError):
            return None
        return found if self.stamp() == stamp else None

    def stamp(self) -> tuple[tuple[int, int] | None, ...]:
        """Return what changes when a file does."""
        paths = (self.tls.cert, self.tls.key, self.tls.client_ca)
        return tuple(_stamp(path) for path in paths if path is not None)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
