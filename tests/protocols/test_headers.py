"""Which fields travel on, each way; credentials and framing end at the gateway."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.protocols import headers
from gateway.types import Headers

NAMES = [b"accept", b"x-custom", b"content-type", b"traceparent", b"user-agent", b"accept-encoding"]


@pytest.mark.parametrize("name", [*NAMES, b"x-request-id"])
def test_sent_on(name: bytes) -> None:
    fields = ((name, b"1"), (name, b"2"))
    assert headers.sent_on(fields) == fields


@pytest.mark.parametrize(
    "name",
    [b"authorization", b"x-api-key", b"cookie", b"proxy-authorization", b"host", b"content-length",
     b"expect", b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade",
     b"proxy-connection", b"x-isthmus-timeout-ms", b"x-isthmus-anything"],
)  # fmt: skip
def test_not_sent_on(name: bytes) -> None:
    assert headers.sent_on(((b"accept", b"*/*"), (name, b"x"))) == ((b"accept", b"*/*"),)


@pytest.mark.parametrize("name", [*NAMES, b"retry-after", b"cache-control", b"www-authenticate"])
def test_sent_back(name: bytes) -> None:
    fields = ((name, b"1"), (name, b"2"))
    assert headers.sent_back(fields) == fields


@pytest.mark.parametrize(
    "name",
    [b"connection", b"keep-alive", b"transfer-encoding", b"trailer", b"upgrade", b"date", b"server",
     b"set-cookie", b"x-request-id", b"server-timing", b"proxy-authenticate", b"x-isthmus-model"],
)  # fmt: skip
def test_not_sent_back(name: bytes) -> None:
    assert headers.sent_back(((name, b"x"), (b"etag", b"1"))) == ((b"etag", b"1"),)


FIELDS = [(b"x-one", b"1"), (b"x-two", b"2"), (b"content-length", b"3")]


@pytest.mark.parametrize(
    "values",
    [
        [b"x-one, X-Two"],
        [b"close,x-one , x-two"],
        [b",,x-two,x-one,"],
        [b"x-one", b"", b"x-two"],
        [b"x-one, x-two, content-length"],  # what frames a message can't be named away
    ],
)
def test_fields_that_connection_names_end_here(values: list[bytes]) -> None:
    fields = [*FIELDS, *((b"connection", value) for value in values)]
    assert headers.end_to_end(fields) == ((b"content-length", b"3"),)


@pytest.mark.parametrize("values", [[], [b"keep-alive"], [b"close"], [b"keep-alive, close"]])
def test_a_connection_that_names_no_field_takes_none(values: list[bytes]) -> None:
    fields = [*((b"connection", value) for value in values), *FIELDS, (b"te", b"trailers")]
    assert headers.end_to_end(fields) == tuple(FIELDS)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1", 0.001), (b"1500", 1.5), (b"007", 0.007), (b"999999999", 999999.999)],
)
def test_timeouts_are_in_milliseconds(value: bytes, seconds: float) -> None:
    known = headers.firsts(((b"x-isthmus-timeout-ms", value),))
    assert headers.timeout(known) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"0", b"-1", b"1.5", b"1s", b"1" * 10, b"1 ", "²".encode()])
def test_what_is_no_timeout_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        headers.timeout(headers.firsts(((b"x-isthmus-timeout-ms", value),)))
    assert caught.value.param == "x-isthmus-timeout-ms"


def test_no_timeout() -> None:
    assert headers.timeout(headers.firsts(())) is None


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"abc-123", "abc-123"),
        (b"~" * 128, "~" * 128),
        (b"", None),
        (b"~" * 129, None),
        (b"a b", None),
        (b"a\nb", None),
        (b"\xff", None),
    ],
)
def test_request_ids_that_may_be_repeated(value: bytes, read: str | None) -> None:
    assert headers.request_id(headers.firsts(((b"x-request-id", value),))) == read


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ((), None),
        (((b"authorization", b"Bearer k"),), b"k"),
        (((b"authorization", b"bearer  k "),), b"k"),
        (((b"authorization", b"BEARER k"),), b"k"),
        (((b"x-api-key", b"k"),), b"k"),
        (((b"authorization", b"Basic abc"), (b"x-api-key", b"k")), b"k"),
        (((b"authorization", b"Bearer one"), (b"x-api-key", b"two")), b"one"),
        (((b"authorization", b"Bearer"), (b"x-api-key", b"two")), b"two"),
        (((b"authorization", b"Bearer "), (b"x-api-key", b"two")), b""),
        (((b"authorization", b"Basic abc"),), None),
    ],
)
def test_keys(fields: Headers, key: bytes | None) -> None:
    assert headers.key(headers.firsts(fields)) == key


@given(st.lists(st.tuples(st.sampled_from([*NAMES, b"connection", b"x-api-key"]), st.binary())))
def test_any_values_are_read(fields: list[tuple[bytes, bytes]]) -> None:
    given_fields = tuple(fields)
    kept = headers.sent_on(given_fields)
    assert all(field in given_fields and field[0] != b"x-api-key" for field in kept)
    headers.sent_back(given_fields)
    headers.key(headers.firsts(given_fields))
    headers.request_id(headers.firsts(given_fields))
    with contextlib.suppress(InvalidRequest):
        headers.timeout(headers.firsts(given_fields))
