"""The official `openai` client on the gateway, and the lists of models that it reads."""

from collections.abc import Iterator

import openai
import pytest
from support import Gate, GatewayProcess, HttpUpstream, digest, events, serving, sized

KEY = "sk-openai-client"
CHUNK = '{"id":"c","object":"chat.completion.chunk","created":1,"model":"served","choices":[%s]}'
DELTA = '{"index":0,"delta":{"content":"%s","reasoning_content":"hm"},"finish_reason":null}'
USER: list[openai.types.chat.ChatCompletionUserMessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    upstream.names = ["served"]
    upstream.versions = {"mnist": {3: "AVAILABLE"}}
    models = {
        "chat": {
            "adapter": "vllm",
            "served_name": "served",
            "aliases": ["org/chat:small"],
            "versions": {1: {"backends": [upstream.url]}, 2: {"backends": [upstream.url]}},
            "labels": {"canary": 2},
        },
        "mnist": {
            "adapter": "tensorflow_serving",
            "backends": [{"rest": upstream.url}],
            "versions": "discover",
            "aliases": ["digits"],
        },
    }
    auth = {"keys": [{"name": "team", "sha256": digest(KEY)}]}
    with serving(tmp_path_factory.mktemp("clients"), models, auth=auth) as running:
        yield running


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with official(gateway) as made:
        yield made


def official(gateway: GatewayProcess, key: str = KEY) -> openai.OpenAI:
    url = f"http://127.0.0.1:{gateway.port('http')}/v1"
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=15)


def test_chat(client: openai.OpenAI, upstream: HttpUpstream) -> None:
    message = {"role": "assistant", "content": "hello", "new_field": [1]}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    upstream.answer(
        sized({"id": "c", "object": "chat.completion", "model": "served", "choices": [choice]})
    )
    answer = client.chat.completions.create(
        model="chat", messages=USER, extra_body={"top_k": 3, "unheard_of": {"a": None}}
    )
    assert answer.choices[0].message.content == "hello"
    assert answer.choices[0].message.model_extra == {"new_field": [1]}
    sent = upstream.only().json()
    assert isinstance(sent, dict)
    assert (sent["model"], sent["top_k"], sent["unheard_of"]) == ("served", 3, {"a": None})


def test_streamed_chat(client: openai.OpenAI, upstream: HttpUpstream) -> None:
    words, gates = ["Hel", "lo", "!"], [Gate(), Gate(), Gate()]
    script: list[bytes | Gate] = []
    for word, gate in zip(words, gates, strict=True):
        script += [f"data: {CHUNK % (DELTA % word)}\n\n".encode(), gate]
    upstream.answer(events(*script, b"data: [DONE]\n\n"))
    stream = client.chat.completions.create(model="chat", messages=USER, stream=True)
    heard = []
    for chunk, gate in zip(stream, gates, strict=True):
        heard.append(chunk.choices[0].delta.content)
        assert chunk.choices[0].delta.model_extra == {"reasoning_content": "hm"}
        gate.wait_reached()  # it goes on only now that this piece was read
        gate.open()
    assert heard == words
    assert list(stream) == []


def test_completions(client: openai.OpenAI, upstream: HttpUpstream) -> None:
    choice = {"index": 0, "text": "42", "finish_reason": "stop", "logprobs": None}
    upstream.answer(
        sized({"id": "c", "object": "text_completion", "model": "served", "choices": [choice]})
    )
    assert client.completions.create(model="chat@2", prompt="6*7").choices[0].text == "42"


def test_an_unknown_model_is_not_found(client: openai.OpenAI, upstream: HttpUpstream) -> None:
    with pytest.raises(openai.NotFoundError, match="Models here: chat, digits, mnist, org"):
        client.chat.completions.create(model="gpt-9", messages=USER)
    assert upstream.requests == []


def test_a_wrong_key_is_an_authentication_error(gateway: GatewayProcess) -> None:
    with (
        official(gateway, "sk-wrong") as stranger,
        pytest.raises(openai.AuthenticationError, match="not known here"),
    ):
        stranger.models.list()


def test_a_backends_death_in_a_stream_is_an_error(
    client: openai.OpenAI, upstream: HttpUpstream
) -> None:
    upstream.answer(events(f"data: {CHUNK % (DELTA % 'Hel')}\n\n".encode(), end=False))
    stream = client.chat.completions.create(model="chat@1", messages=USER, stream=True)
    next(stream)
    upstream.drop_connections()
    with pytest.raises(openai.APIError, match="chat@1: the backend closed the connection"):
        next(stream)


def test_models_are_listed(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert sorted(listed) == ["chat", "digits", "mnist", "org/chat:small"]
    assert {model.object for model in listed.values()} == {"model"}
    assert listed["chat"].created > 1_700_000_000
    assert (listed["chat"].owned_by, listed["mnist"].owned_by) == ("vllm", "tensorflow_serving")


@pytest.mark.parametrize("name", ["chat", "org/chat:small", "chat@2", "chat@canary"])
def test_an_llm_is_retrieved(client: openai.OpenAI, upstream: HttpUpstream, name: str) -> None:
    found = client.models.retrieve(name)
    assert (found.id, found.object) == (name, "model")
    assert upstream.requests == []


def test_names_are_taken_percent_encoded_and_bare(
    client: openai.OpenAI, gateway: GatewayProcess
) -> None:
    key = {"x-api-key": KEY}
    for path in ("org/chat:small", "org%2Fchat%3Asmall", "%6frg/chat:small"):
        answer = gateway.http.get(f"/v1/models/{path}", key)
        assert (answer.status, answer.json()["id"]) == (200, "org/chat:small")


@pytest.mark.parametrize("name", ["gpt-9", "gpt-9@1", "chat@9", "chat@prod", "mnist@9"])
def test_what_is_not_there_is_not_retrieved(client: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(name)


@pytest.mark.parametrize("path", ["mnist", "digits", "mnist/versions/3", "mnist@3", "MNIST"])
def test_a_classic_model_answers_in_its_own_form(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str
) -> None:
    upstream.answer(sized({"model_version_status": []}))
    answer = gateway.http.get(f"/v1/models/{path}", {"x-api-key": KEY})
    if path == "MNIST":  # names are told apart by case, routes are not
        assert answer.status == 404
        return
    assert answer.json() == {"model_version_status": []}
    version = "/versions/3" if "3" in path else ""
    assert upstream.only().path == f"/v1/models/mnist{version}"
