"""TLS on the http and grpc listeners: who is trusted, and certificates that change on disk."""

import contextlib
import os
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import support
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import Gate, GatewayProcess, HttpUpstream, Raw, events, serving, sized, until

CHAT = "/v1/chat/completions"
PEMS = Path(support.__file__).with_name("tls")
NAME = "server.test"
GET = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"


@contextmanager
def started(
    folder: Path, upstream: HttpUpstream, mutual: bool = False, **more: Any
) -> Iterator[GatewayProcess]:
    """Run a gateway that shows a copy of the first certificate, which a test may replace."""
    upstream.names = ["chat"]
    for suffix in ("pem", "key"):
        shutil.copy(PEMS / f"server.{suffix}", folder / f"tls.{suffix}")
    tls = {"cert": str(folder / "tls.pem"), "key": str(folder / "tls.key")}
    if mutual:
        tls["client_ca"] = str(PEMS / "ca.pem")
    models = {"chat": {"adapter": "vllm", "backends": [upstream.url]}}
    with serving(folder, models, server={"tls": tls}, **more) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    auth = {"keys": [{"name": "team", "sha256": support.digest("sk")}]}
    with started(tmp_path_factory.mktemp("tls"), upstream, auth=auth) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with started(tmp_path_factory.mktemp("mtls"), upstream, mutual=True) as running:
        yield running


def trusting(shows: str | None = None, *authorities: str) -> ssl.SSLContext:
    """Return a client's context that trusts these files, and shows one of itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in authorities or ("ca", "second"):
        context.load_verify_locations(PEMS / f"{name}.pem")
    if shows is not None:
        context.load_cert_chain(PEMS / f"{shows}.pem", PEMS / f"{shows}.key")
    return context


def secure(gateway: GatewayProcess, shows: str | None = None, *authorities: str) -> Raw:
    return Raw(gateway.port("http"), trusting(shows, *authorities), NAME)


def shown(gateway: GatewayProcess) -> bytes:
    """Return the certificate that a new http connection gets."""
    with secure(gateway) as raw:
        found = raw.socket.getpeercert(binary_form=True)
    assert found is not None
    return found


def certificate(name: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert((PEMS / f"{name}.pem").read_text())


def grpc_channel(
    gateway: GatewayProcess, authority: str = "ca", shows: str | None = None
) -> grpc.Channel:
    own = (
        [(PEMS / f"{shows}.{kind}").read_bytes() for kind in ("key", "pem")]
        if shows
        else [None] * 2
    )
    credentials = grpc.ssl_channel_credentials((PEMS / f"{authority}.pem").read_bytes(), *own)
    options = [
        ("grpc.ssl_target_name_override", NAME),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
    return grpc.secure_channel(gateway.grpc_address, credentials, options)


def healthy(channel: grpc.Channel) -> bool:
    """Whether a call over this channel is answered."""
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=5
        )
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def serves_grpc(gateway: GatewayProcess, authority: str = "ca", shows: str | None = None) -> bool:
    with grpc_channel(gateway, authority, shows) as channel:
        return healthy(channel)


# ── trust ──


def test_the_gateway_shows_its_certificate_on_both_listeners(gateway: GatewayProcess) -> None:
    assert shown(gateway) == certificate("server")
    assert serves_grpc(gateway)
    assert not serves_grpc(gateway, "second")
    with pytest.raises(ssl.SSLCertVerificationError):
        secure(gateway, None, "second")


def test_all_that_works_without_tls_works_with_it(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.answer(sized(b"x" * 300_000), events(b"data: 1\n\n", b"data: 2\n\n"), sized())
    body = b'{"model":"chat","x":"%b"}' % (b"x" * 300_000)
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-api-key: sk\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with secure(gateway) as raw:
        assert raw.socket.selected_alpn_protocol() is None
        raw.send((head.encode() + body) * 3)
        assert raw.answer().body == b"x" * 300_000
        assert raw.answer().body == b"data: 1\n\ndata: 2\n\n"
        assert raw.answer().status == 200
    assert [request.body for request in upstream.requests] == [body] * 3


def test_a_stranger_gets_its_401_while_its_body_still_comes(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    size = 8 * 2**20
    with secure(gateway) as raw:
        raw.send(f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n".encode())
        assert raw.send_all(b"x" * size), "the client was reset before it could read its answer"
        assert raw.answer().status == 401
        assert raw.rest() == b""


def test_who_speaks_no_tls_is_not_served(gateway: GatewayProcess) -> None:
    with Raw(gateway.port("http")) as raw:
        raw.send(GET)
        assert not raw.rest().startswith(b"HTTP/")
    with grpc.insecure_channel(gateway.grpc_address, [("grpc.enable_http_proxy", 0)]) as channel:
        assert not healthy(channel)
    assert shown(gateway) == certificate("server")


def test_old_versions_of_tls_are_not_spoken(gateway: GatewayProcess) -> None:
    context = trusting()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        Raw(gateway.port("http"), context, NAME)


def test_a_hang_up_reaches_the_backend_through_tls(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    gate = Gate()
    upstream.answer([gate])
    with secure(gateway) as raw:
        raw.send(
            f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-api-key: sk\r\n".encode()
            + b'content-length: 16\r\n\r\n{"model":"chat"}'
        )
        gate.wait_reached()
    assert upstream.only().closed.wait(5), "the backend works on for nobody"
    gate.open()
    gateway.idle()


# ── clients that show who they are ──


def test_a_client_with_a_certificate_of_the_authority_is_served(mutual: GatewayProcess) -> None:
    with secure(mutual, "client") as raw:
        raw.send(GET)
        assert raw.answer().status == 200
    assert serves_grpc(mutual, shows="client")


@pytest.mark.parametrize("shows", [None, "second"], ids=["none", "of another"])
def test_a_client_without_one_is_not(mutual: GatewayProcess, shows: str | None) -> None:
    before = mutual.total("isthmus_requests_total")
    with contextlib.suppress(ssl.SSLError, ConnectionError), secure(mutual, shows) as raw:
        raw.socket.sendall(GET)
        assert raw.rest() == b""
    assert not serves_grpc(mutual, shows=shows)
    assert mutual.total("isthmus_requests_total") == before


# ── certificates that change ──


def replace(folder: Path, name: str, *suffixes: str) -> None:
    """Put files in the place of those there, each at once, as those who renew them do."""
    for suffix in suffixes:
        shutil.copy(PEMS / f"{name}.{suffix}", folder / "new")
        os.replace(folder / "new", folder / f"tls.{suffix}")


def test_new_certificates_are_shown_to_new_connections_and_old_ones_go_on(
    upstream: HttpUpstream, tmp_path: Path
) -> None:
    gate = Gate()
    upstream.answer(events(b"data: 1\n\n", gate, b"data: 2\n\n"))
    body = b'{"model":"chat","stream":true}'
    with (
        started(tmp_path, upstream) as gateway,
        secure(gateway) as idle,
        secure(gateway) as streams,
        grpc_channel(gateway) as channel,
    ):
        assert healthy(channel)
        streams.send(
            f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        gate.wait_reached()
        replace(tmp_path, "second", "pem", "key")
        until(lambda: shown(gateway) == certificate("second"), "the new certificate")
        assert serves_grpc(gateway, "second")
        assert not serves_grpc(gateway, "ca")
        gate.open()
        assert streams.answer().body == b"data: 1\n\ndata: 2\n\n"
        idle.send(GET)
        assert idle.answer().status == 200
        assert healthy(channel)
        replace(tmp_path, "server", "pem", "key")
        until(lambda: shown(gateway) == certificate("server"), "the first certificate")
        assert serves_grpc(gateway, "ca")


@pytest.mark.parametrize("half", ["another's certificate", "a part", "nothing", "no file"])
def test_a_pair_that_is_half_written_is_not_taken(
    upstream: HttpUpstream, tmp_path: Path, half: str
) -> None:
    with started(tmp_path, upstream) as gateway:
        seen = gateway.total("isthmus_requests_total")
        path = tmp_path / "tls.pem"
        if half == "another's certificate":
            replace(tmp_path, "second", "pem")
        elif half == "no file":
            path.unlink()
        else:
            new = (PEMS / "second.pem").read_bytes()
            path.write_bytes(new[:300] if half == "a part" else b"")
        for _ in range(2):  # each on a new connection, over more than one look at the files
            until(sweeps(gateway), "a look at the files")
            assert shown(gateway) == certificate("server")
            assert serves_grpc(gateway, "ca")
        replace(tmp_path, "second", "pem", "key")
        until(lambda: shown(gateway) == certificate("second"), "the new certificate")
        assert serves_grpc(gateway, "second")
        assert gateway.total("isthmus_requests_total") == seen


def sweeps(gateway: GatewayProcess) -> Any:
    """Return whether the date in the gateway's answers moved on, which a sweep does."""

    def date() -> str:
        return gateway.listener("metrics").get("/healthz").headers["date"]

    began = date()
    return lambda: date() != began
