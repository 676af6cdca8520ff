"""Forms in parts: what is found in them, what is refused, and what only looks like a boundary."""

import email.parser
import email.policy
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest, UnsupportedMedia
from gateway.protocols.multipart import Part, boundary, parts
from gateway.protocols.routes import AUDIO, BY_PATH
from gateway.types import Asked, Family, Form, Limits, Model, Request, Target, Version

LIMIT = Limits()
B = b"xYz--9"
KIND = b"multipart/form-data; boundary=" + B
PATH = "/v1/audio/transcriptions"


def field(name: str, value: bytes, *lines: str, more: str = "") -> bytes:
    head = "\r\n".join((f'Content-Disposition: form-data; name="{name}"{more}', *lines))
    return head.encode() + b"\r\n\r\n" + value


def form(*written: bytes, end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--%s\r\n%s\r\n" % (B, part) for part in written) + b"--" + B + end


FILE = field("file", b"RIFF\r\n\r\n--\x00", "Content-Type: audio/wav", more='; filename="a.wav"')
MODEL = field("model", b"chat")


def request(*kinds: bytes) -> Request:
    headers = tuple((b"content-type", kind) for kind in kinds)
    return Request("r", BY_PATH[PATH], None, headers, None, None, 0.0)  # type: ignore[arg-type]


def decoded(body: bytes, kind: bytes = KIND) -> Asked:
    return AUDIO.decode(request(kind), body, LIMIT)


def encoded(asked: Asked, served: str) -> bytes:
    version = Version("chat", 1, served, (), frozenset({Form.OPENAI}))
    model = Model("chat", "vllm", Family.LLM, served, {1: version})
    target = Target(model, version, False)
    return AUDIO.encode(BY_PATH[PATH], asked, target, ()).body


@pytest.mark.parametrize("written", [(FILE, MODEL), (MODEL, FILE), (FILE, MODEL, FILE)])
@pytest.mark.parametrize("end", [b"--", b"--\r\n"])
def test_the_model_is_found_wherever_it_stands(written: tuple[bytes, ...], end: bytes) -> None:
    body = form(*written, end=end)
    asked = decoded(body)
    assert (str(asked.ref), asked.stream) == ("chat", False)
    assert asked.body is body


def test_a_name_that_needs_no_change_leaves_the_very_bytes() -> None:
    asked = decoded(form(FILE, MODEL))
    assert encoded(asked, "chat") is asked.body


def test_the_name_alone_is_spliced() -> None:
    asked = decoded(form(MODEL, FILE, field("prompt", b"chat")))
    wanted = form(field("model", b"org/whisper"), FILE, field("prompt", b"chat"))
    assert encoded(asked, "org/whisper") == wanted


def test_a_length_that_the_part_tells_stays_true() -> None:
    told = field("model", b"chat@1", "content-LENGTH:  6", "Content-Type: text/plain")
    asked = decoded(form(FILE, told))
    wanted = field("model", b"whisper", "content-LENGTH:  7", "Content-Type: text/plain")
    assert encoded(asked, "whisper") == form(FILE, wanted)


@pytest.mark.parametrize(
    ("value", "stream"), [(b"true", True), (b"True", True), (b"1", True), (b"false", False)]
)
def test_a_stream_is_seen(value: bytes, stream: bool) -> None:
    assert decoded(form(MODEL, FILE, field("stream", value))).stream is stream


@pytest.mark.parametrize(
    "kind",
    [
        KIND,
        b'Multipart/Form-Data ; Boundary="%s"' % B,
        KIND + b"; charset=UTF-8",
        KIND + b";",
    ],
)
def test_ways_to_write_the_type(kind: bytes) -> None:
    assert boundary(kind) == B
    assert str(decoded(form(MODEL), kind).ref) == "chat"


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=" + b"x" * 71,
        b'multipart/form-data; boundary="a "',
        b"multipart/form-data; boundary=a@b",
        b"multipart/form-data; boundary*=utf-8''abc",
        b"multipart/form-data; boundary*0=a; boundary*1=b",
        KIND + b"; boundary=other",
        KIND + b"; charset=utf-16",
        KIND + b"; =x",
    ],
)
def test_a_boundary_that_is_none(kind: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decoded(form(MODEL), kind)


@pytest.mark.parametrize("kinds", [(), (b"application/json",), (KIND, KIND), (b"",)])
def test_another_type_is_not_taken(kinds: tuple[bytes, ...]) -> None:
    with pytest.raises(UnsupportedMedia, match="multipart/form-data"):
        AUDIO.decode(request(*kinds), form(MODEL), LIMIT)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (form(FILE), "names no model"),
        (form(), "must begin with the boundary"),
        (form(MODEL, MODEL), "two fields 'model'"),
        (form(MODEL, field("model", b"other")), "two fields 'model'"),
        (form(MODEL, field("stream", b"1"), field("stream", b"0")), "two fields 'stream'"),
        (form(field("model", b"chat", "Content-Transfer-Encoding: base64")), "plain text"),
        (form(field("model", b"chat", "Content-Type: text/plain; charset=utf-16")), "plain text"),
        (form(field("model", b"chat", more='; filename="m"')), "plain text"),
        (form(field("model", b"chat", more="; filename*=utf-8''m")), "plain text"),
        (form(field("model", b"x" * 257)), "plain text"),
        (form(field("model", b"no such name")), "not a model's name"),
        (form(field("model", b"\xff")), "not a model's name"),
        (form(field("model", b"")), "not a model's name"),
        (form(field("model", b"chat", "Content-Length: 3")), "another length"),
        (form(MODEL, field("file", b"abc", "Content-Length: 99")), "another length"),
        (form(MODEL, end=b""), "own boundary|no closing"),
        (form(MODEL)[: -len(B) - 6], "no closing boundary"),
        (form(MODEL, end=b"-"), "own boundary"),
        (form(MODEL, end=b"--\r\nmore"), "something follows"),
        (b"preamble\r\n" + form(MODEL), "must begin with the boundary"),
        (b"\r\n" + form(MODEL), "must begin with the boundary"),
        (form(MODEL).replace(b"\r\n", b"\n"), "must begin with the boundary"),
        (b"", "must begin with the boundary"),
        (form(MODEL, field("file", b"\r\n--%sand more" % B)), "own boundary"),
        (form(*[FILE] * 300, MODEL), "more than 256 parts"),
        (form(b"\r\nchat"), "each part needs"),
        (form(b"Content-Type: text/plain\r\n\r\nchat"), "each part needs"),
        (form(field("model", b"chat", f"x: {'y' * 9000}")), "does not end within"),
        (form(field("model", b"chat", *[f"x{n}: y" for n in range(16)])), "no field, or one field"),
        (form(field("model", b"chat", "x: a\nb")), "no field"),
        (form(field("model", b"chat", f"--{B.decode()}: y")), "does not end within"),
        (form(field("model", b"chat", " folded")), "no field"),
        (form(field("model", b"chat", "x : y")), "no field"),
        (form(field("model", b"chat", 'Content-Disposition: form-data; name="x"')), "one field"),
        (form(b'Content-Disposition: attachment; name="model"\r\n\r\nchat'), "each part needs"),
        (form(b"Content-Disposition: form-data\r\n\r\nchat"), "each part needs"),
        # Names that some parsers read as another.
        (form(field("x", b"chat", more="; name*=utf-8''model")), "extended form"),
        (form(field("x", b"chat", more="; name*0=mod; name*1=el")), "extended form"),
        (form(field("x", b"chat", more="; name=model")), "parameter twice"),
        (form(field("mod\\el", b"chat")), "each part needs"),
        (form(field("x", b"chat", more='; filename="a\\\\"; name="model"')), "can't be read"),
        (form(field("x", b"chat", more='; filename="a\\"; name="model"')), "can't be read"),
    ],
)
def test_what_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        decoded(body)
    assert caught.value.status == 400
    assert "\n" not in caught.value.message


def test_a_form_of_many_megabytes_is_scanned_without_a_copy() -> None:
    sound = (b"\r\n--xYz--" * 7 + b"\x00") * 50_000
    body = form(field("file", sound, more='; filename="a"'), MODEL)
    found = list(parts(body, B))
    assert [part.name for part in found] == [b"file", b"model"]
    assert found[0].end - found[0].start == len(sound)


names = st.sampled_from(["file", "prompt", "language", "response_format", "Model", "models"])
nearly = st.sampled_from(
    [b"--" + B, b"\n--" + B, b"\r--" + B, b"\r\n-" + B, b"\r\n--" + B[:-1], b"\r\n", b"--", b"\r",
     b"\r\n\r\n", b'Content-Disposition: form-data; name="model"\r\n\r\nother', B + b"--\r\n"]
)  # fmt: skip
values = st.lists(st.one_of(st.binary(max_size=20), nearly), max_size=8).map(b"".join)
others = st.lists(st.builds(field, names, values), max_size=5)


@given(others, others, st.sampled_from(["chat", "chat@2", "org/whisper:large"]))
@example([field("file", b"\r\n--" + B[:-1])], [], "chat")
def test_random_forms(before: list[bytes], after: list[bytes], name: str) -> None:
    body = form(*before, field("model", name.encode()), *after)
    if body.count(b"\r\n--" + B) != len(before) + len(after) + 1:
        return  # a value holds the boundary after all
    asked = decoded(body)
    assert str(asked.ref) == name
    sent = encoded(asked, "served-here")
    assert sent == form(*before, field("model", b"served-here"), *after)
    assert str(decoded(sent).ref) == "served-here"
    _check_against_the_standard_library(body, list(parts(body, B)))


def _check_against_the_standard_library(body: bytes, found: list[Part]) -> None:
    """Python's own reader of mail takes lone line feeds for line ends, so only forms without."""
    if b"\n" in body.replace(b"\r\n", b"") or b"\r" in body.replace(b"\r\n", b""):
        return
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(b"Content-Type: " + KIND + b"\r\n\r\n" + body)
    theirs = [part.get_param("name", header="content-disposition") for part in message.iter_parts()]
    assert [part.name.decode() for part in found] == theirs


junk = st.lists(
    st.one_of(
        st.binary(max_size=12),
        nearly,
        st.sampled_from(
            [b"--" + B + b"\r\n", b"\r\n--" + B + b"\r\n", b"\r\n--" + B + b"--", MODEL, FILE,
             b"Content-Length: 4\r\n", b"; name*=x", b'"', b"\\", b";", b"=", b"content-type:"]
        ),
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


@given(junk, st.one_of(st.just(KIND), junk))
def test_any_bytes_are_read_or_refused(body: bytes, kind: bytes) -> None:
    for text in (body, b"--" + B + b"\r\n" + body, form(MODEL, body), form(body, MODEL)):
        try:
            asked = decoded(text, kind)
        except InvalidRequest:
            continue
        assert asked.name_at is not None
        found = list(parts(text, boundary(kind)))
        assert all(one.end < two.start for one, two in pairwise(found))
        assert [part.name for part in found].count(b"model") == 1


@pytest.mark.parametrize(
    "value", [b'form-data; name="' + b"\\a" * 4000, b"form-data" + b" ;" * 4000, b"; a=b" * 1600]
)
def test_a_long_head_costs_little(value: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decoded(form(b"Content-Disposition: " + value + b"\r\n\r\nx"))
