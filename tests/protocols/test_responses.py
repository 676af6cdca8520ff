"""What is read of Responses: the ids in requests, and the id in the first bytes of an answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.protocols.responses import IdScan, maker
from gateway.protocols.routes import BY_PATH, CANCEL_RESPONSE, RESPONSES, RETRIEVE_RESPONSE
from gateway.types import Asked, Family, Form, Limits, Model, Operation, Request, Target, Version

ID = "resp_0123456789abcdef"
CREATE = BY_PATH["/v1/responses"]
ANSWER = {"id": ID, "object": "response", "output": [{"id": "msg_1"}], "metadata": {"id": "x"}}


def decoded(operation: Operation, body: bytes = b"", held: str = "", query: bytes = b"") -> Asked:
    request = Request(
        "r", operation, None, (), None, None, 0.0,  # type: ignore[arg-type]
        held=held, query=query,
    )  # fmt: skip
    return RESPONSES.decode(request, body, Limits())


def scanned(*pieces: bytes, events: bool = False) -> str:
    scan, found = IdScan(events), ""
    for piece in pieces:
        if not scan.done:
            assert not found
            found = scan.feed(piece)
    return found


@pytest.mark.parametrize(
    ("before", "held"),
    [("null", ""), (json.dumps(ID), ID), ('"a b"', ""), ('""', ""), (json.dumps("x" * 200), "")],
)
def test_a_response_before_this_one(before: str, held: str) -> None:
    body = b'{"model": "chat", "input": "hi", "previous_response_id": %s}' % before.encode()
    asked = decoded(CREATE, body)
    assert (str(asked.ref), asked.held, asked.stream) == ("chat", held, False)


@pytest.mark.parametrize("before", ["7", "[]", "{}", "true"])
def test_an_id_that_is_no_text_is_refused(before: str) -> None:
    with pytest.raises(InvalidRequest, match="previous_response_id"):
        decoded(CREATE, b'{"model": "chat", "previous_response_id": %s}' % before.encode())


@pytest.mark.parametrize(
    ("operation", "query", "path", "stream"),
    [
        (RETRIEVE_RESPONSE, b"", f"/v1/responses/{ID}", False),
        (RETRIEVE_RESPONSE, b"stream=true&starting_after=3",
         f"/v1/responses/{ID}?stream=true&starting_after=3", True),
        (RETRIEVE_RESPONSE, b"include%5B%5D=a", f"/v1/responses/{ID}?include%5B%5D=a", False),
        (CANCEL_RESPONSE, b"", f"/v1/responses/{ID}/cancel", False),
    ],
)  # fmt: skip
def test_calls_by_id(operation: Operation, query: bytes, path: str, stream: bool) -> None:
    asked = decoded(operation, held=ID, query=query)
    assert (asked.ref, asked.held, asked.path, asked.stream) == (None, ID, path, stream)
    version = Version("chat", 1, "served", (), frozenset({Form.OPENAI}))
    target = Target(Model("chat", "vllm", Family.LLM, "served", {1: version}), version, True)
    message = RESPONSES.encode(operation, asked, target, ())
    assert (message.method, message.path) == (operation.method, path)


@pytest.mark.parametrize("query", [b"a b", b"\xff", b"a\r\nb", b"x" * 3000])
def test_a_query_that_is_none(query: bytes) -> None:
    with pytest.raises(InvalidRequest, match="query"):
        decoded(RETRIEVE_RESPONSE, held=ID, query=query)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (ANSWER, ID),
        ({"object": "response", "metadata": {"id": "resp_evil"}, "output": [], "id": ID}, ID),
        ({"x": '"id":"resp_evil"', "y": '{"id":"resp_evil"}', "id": ID}, ID),
        ({"output": [{"id": "msg"}, {"a": {"id": "resp_evil"}}]}, ""),
        ({"x": "id", "id": 7}, ""),
        ({"id": "not an id/.."}, ""),
        ({"id": "x" * 200}, ""),
        ([{"id": ID}], ""),
        ({"a": ["id", ID], "b": "\\", "id": ID}, ID),
        ("id", ""),
        (None, ""),
    ],
)
def test_the_id_of_an_answer(answer: object, found: str) -> None:
    for indent in (None, 2):
        text = json.dumps(answer, indent=indent).encode()
        assert scanned(text, b"") == found
        assert scanned(*(text[n : n + 1] for n in range(len(text))), b"") == found


def event(kind: str, **content: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({**content, 'type': kind})}\n\n".encode()


CREATED = event("response.created", response=ANSWER, sequence_number=0)


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (CREATED, ID),
        (b": hello data: x\n\n" + CREATED, ID),
        (event("ping", id="resp_evil") + CREATED, ID),
        (b"data: [DONE]\n\n", ""),
        (b"data:" + json.dumps({"response": {"id": ID}}).encode() + b"\n\n", ID),
        (event("x", data={"response": {"id": "resp_evil"}}), ""),
        (b"", ""),
    ],
)
def test_the_id_of_a_stream(stream: bytes, found: str) -> None:
    assert scanned(stream, b"", events=True) == found
    singly = (stream[n : n + 1] for n in range(len(stream)))
    assert scanned(*singly, b"", events=True) == found


def test_a_scan_has_an_end() -> None:
    scan = IdScan(False)
    assert scan.feed(b'{"x": "' + b"y" * 70_000) == ""
    assert scan.done
    for start in (b"}", b"]}", b"hello", b"", b"\x0b"):
        again = IdScan(False)
        again.feed(start)
        again.feed(b"")
        assert again.done


def test_nothing_is_looked_at_once_the_id_is_found() -> None:
    scan = IdScan(False)
    assert scan.feed(json.dumps(ANSWER).encode()[:60]) == ID
    assert scan.done


tokens = [
    b'"id"', b":", b"{", b"}", b"\\", b"data:", b"\n", b'"response"', b'"resp_1"', b"[", b"]", b","
]  # fmt: skip


@given(
    st.lists(st.one_of(st.binary(max_size=8), st.sampled_from(tokens)), max_size=20),
    st.booleans(),
)
def test_any_bytes_are_scanned(pieces: list[bytes], events: bool) -> None:
    scanned(*pieces, b"", events=events)


@pytest.mark.parametrize(
    ("body", "name"),
    [(b'{"id": "x", "model": "m"}', "m"), (b"{}", ""), (b"no", ""), (b'{"model": 1}', "")],
)
def test_who_made_a_response(body: bytes, name: str) -> None:
    assert maker(body) == name
