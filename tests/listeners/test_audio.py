"""Audio through the official `openai` client: forms in parts, forwarded byte for byte."""

import email.parser
import email.policy
from collections.abc import Iterator

import openai
import pytest
from support import GatewayProcess, HttpUpstream, Recorded, events, serving, sized

SOUND = b"RIFF\x00\r\n--boundary\r\n\xff" * 20_000
PATH = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    upstream.names = ["served", "whisper"]
    models = {
        "ears": {"adapter": "vllm", "served_name": "served", "backends": [upstream.url]},
        "whisper": {"adapter": "vllm", "backends": [upstream.url]},
    }
    limits = {"max_body": "1MiB"}
    with serving(tmp_path_factory.mktemp("audio"), models, limits=limits) as running:
        yield running


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{gateway.port('http')}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=15) as made:
        yield made


def read(request: Recorded) -> dict[str, bytes]:
    """Read a form as an independent reader does."""
    kind = request.headers["content-type"].encode()
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(b"content-type: " + kind + b"\r\n\r\n" + request.body)
    return {
        str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)
        for part in message.iter_parts()
    }


@pytest.mark.parametrize(("model", "served"), [("ears", "served"), ("whisper", "whisper")])
def test_a_transcription(
    client: openai.OpenAI, upstream: HttpUpstream, model: str, served: str
) -> None:
    upstream.answer(sized({"text": "hello"}))
    answer = client.audio.transcriptions.create(
        model=model,
        file=("a sound.wav", SOUND, "audio/wav"),
        language="en",
        extra_body={"hotwords": "isthmus"},
    )
    assert answer.text == "hello"
    request = upstream.only()
    assert request.line == f"POST {PATH}"
    fields = read(request)
    assert (fields["model"], fields["language"]) == (served.encode(), b"en")
    assert fields["hotwords"] == b"isthmus"
    assert SOUND in request.body


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # so the client has it
def test_a_translation(client: openai.OpenAI, upstream: HttpUpstream) -> None:
    upstream.answer(sized({"text": "good day"}))
    answer = client.audio.translations.create(model="ears", file=("a.mp3", SOUND))
    assert answer.text == "good day"
    assert upstream.only().line == "POST /v1/audio/translations"


def test_a_streamed_transcription(client: openai.OpenAI, upstream: HttpUpstream) -> None:
    piece = b'data: {"type": "transcript.text.delta", "delta": "%s"}\n\n'
    upstream.answer(events(piece % b"Hel", piece % b"lo", b"data: [DONE]\n\n"))
    stream = client.audio.transcriptions.create(model="ears", file=("a", SOUND), stream=True)
    assert [event.delta for event in stream if event.type == "transcript.text.delta"] == [
        "Hel",
        "lo",
    ]
    assert read(upstream.only())["stream"] == b"true"


def test_what_needs_no_change_passes_byte_for_byte(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    kind = 'multipart/form-data; boundary="a (very) plain=one"'
    body = (
        b"--a (very) plain=one\r\n"
        b"content-disposition: form-data; name=file; filename*=utf-8''%e2%82%ac.wav\r\n\r\n"
        + SOUND
        + b"\r\n--a (very) plain=one\r\n"
        b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
        b"--a (very) plain=one--"
    )
    upstream.answer(sized({"text": ""}))
    answer = gateway.http.post(PATH, body, {"content-type": kind})
    assert (answer.status, answer.headers["x-isthmus-model"]) == (200, "whisper@1")
    request = upstream.only()
    assert request.body == body
    assert request.headers["content-type"] == kind


def test_a_backends_own_error_passes(client: openai.OpenAI, upstream: HttpUpstream) -> None:
    refusal = {"error": {"message": "The model does not support Transcriptions API", "code": 501}}
    upstream.answer(sized(refusal, "501 Not Implemented"))
    with pytest.raises(openai.InternalServerError, match="does not support Transcriptions"):
        client.audio.transcriptions.create(model="ears", file=("a", b"sound"))


def test_what_is_no_such_form_is_refused(
    client: openai.OpenAI, gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    with pytest.raises(openai.NotFoundError, match="Models here: ears, whisper"):
        client.audio.transcriptions.create(model="nobody", file=("a", b"sound"))
    http, form = gateway.http, {"content-type": "multipart/form-data; boundary=x"}
    part = '--x\r\ncontent-disposition: form-data; name="model"\r\n\r\n%s\r\n'
    twice = http.post(PATH, f"{part % 'ears'}{part % 'whisper'}--x--".encode(), form)
    assert (twice.status, twice.json()["error"]["param"]) == (400, "model")
    assert "two fields 'model'" in twice.json()["error"]["message"]
    for headers, status, kind in (
        ({"content-type": "application/json"}, 415, "UnsupportedMediaTypeError"),
        (form, 400, "BadRequestError"),
    ):
        answer = http.post(PATH, b'{"model": "ears"}', headers)
        assert (answer.status, answer.json()["error"]["type"]) == (status, kind)
    too_large = http.post(PATH, b"--x\r\n" + b"y" * 2**20, form)
    assert too_large.status == 413
    assert upstream.requests == []
