"""Real vLLM through the gateway and directly: what a client sees must be the same."""

import json
import socket

import httpx
import openai
import pytest
from real.road import Road, Side, wait_for

PROMPT = "Beautiful is"
ZEN = " better than ugly.\nExplicit is better than implicit."
CHAT = [{"role": "user", "content": PROMPT}]


@pytest.fixture
def client(side: Side) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{side.openai}/v1", api_key="none", max_retries=0, timeout=60)


def test_completion(client: openai.OpenAI, side: Side) -> None:
    answer = client.completions.create(model=side.llm, prompt=PROMPT, max_tokens=12, temperature=0)
    assert answer.choices[0].text == ZEN
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


def test_chat(client: openai.OpenAI, side: Side) -> None:
    answer = client.chat.completions.create(
        model=side.llm, messages=CHAT, max_tokens=24, temperature=0
    )
    assert answer.choices[0].message.content == "better than ugly."
    assert answer.model == "tiny-llama"


def test_streamed_chat(client: openai.OpenAI, side: Side) -> None:
    stream = client.chat.completions.create(
        model=side.llm,
        messages=CHAT,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces = list(stream)
    text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert text == "better than ugly."
    assert len(pieces) >= 3  # the role, text in as many pieces as vLLM makes of it, the usage
    assert pieces[0].choices[0].delta.role == "assistant"
    assert pieces[-1].usage is not None


def test_responses(client: openai.OpenAI, side: Side) -> None:
    answer = client.responses.create(
        model=side.llm, input=PROMPT, max_output_tokens=24, temperature=0
    )
    assert answer.output_text == "better than ugly."


def test_streamed_responses(client: openai.OpenAI, side: Side) -> None:
    with client.responses.stream(
        model=side.llm, input=PROMPT, max_output_tokens=24, temperature=0
    ) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


def test_a_response_by_its_id(client: openai.OpenAI, side: Side) -> None:
    made = client.responses.create(
        model=side.llm, input=PROMPT, max_output_tokens=24, temperature=0
    )
    found = client.responses.retrieve(made.id)
    assert found.output_text == made.output_text == "better than ugly."
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(made.id)
    more = client.responses.create(
        model=side.llm,
        input=PROMPT,
        max_output_tokens=8,
        temperature=0,
        previous_response_id=made.id,
    )
    assert more.previous_response_id == made.id


def test_a_streamed_response_by_its_id(client: openai.OpenAI, side: Side) -> None:
    with client.responses.stream(
        model=side.llm, input=PROMPT, max_output_tokens=24, temperature=0
    ) as stream:
        made = stream.get_final_response()
    assert client.responses.retrieve(made.id).output_text == made.output_text


def test_a_background_response_is_followed_and_cancelled(client: openai.OpenAI, side: Side) -> None:
    def started() -> openai.types.responses.Response:
        return client.responses.create(
            model=side.llm,
            input=PROMPT,
            max_output_tokens=1500,
            temperature=0,
            background=True,
            extra_body={"ignore_eos": True},
        )

    made = started()
    assert made.status in ("queued", "in_progress")
    assert client.responses.cancel(made.id).status == "cancelled"
    assert client.responses.retrieve(made.id).status == "cancelled"


@pytest.mark.parametrize("method", ["retrieve", "cancel"])
def test_an_unknown_response_is_not_found(client: openai.OpenAI, method: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        getattr(client.responses, method)("resp_nobody")
    error = caught.value.body
    assert isinstance(error, dict)
    assert (error["param"], error["code"]) == ("response_id", 404)


def test_a_response_made_directly_is_found_through_the_gateway(road: Road) -> None:
    asked = {"model": road.direct.llm, "input": PROMPT, "max_output_tokens": 8, "temperature": 0}
    made = httpx.post(f"{road.direct.openai}/v1/responses", json=asked, timeout=60).json()
    path = f"/v1/responses/{made['id']}"
    found = httpx.get(f"{road.gateway.openai}{path}", timeout=60)
    assert found.json() == httpx.get(f"{road.direct.openai}{path}", timeout=60).json()
    assert found.headers["x-isthmus-model"] == "chat@1"


@pytest.mark.parametrize("path", ["transcriptions", "translations"])
def test_audio_for_a_model_of_text_fails_in_vllms_words(road: Road, path: str) -> None:
    answers = [
        httpx.post(
            f"{side.openai}/v1/audio/{path}",
            data={"model": side.llm},
            files={"file": ("a.wav", b"RIFF")},
            timeout=60,
        )
        for side in (road.gateway, road.direct)
    ]
    assert answers[0].status_code == answers[1].status_code >= 400
    assert answers[0].content == answers[1].content
    assert answers[0].headers["x-isthmus-model"] == "chat@1"


def test_messages_in_anthropics_form(side: Side) -> None:
    answer = httpx.post(
        f"{side.openai}/v1/messages",
        headers={"anthropic-version": "2023-06-01"},
        json={"model": side.llm, "messages": CHAT, "max_tokens": 24, "temperature": 0},
        timeout=60,
    )
    assert answer.status_code == 200
    body = answer.json()
    assert body["type"] == "message"
    assert body["content"][0]["text"] == "better than ugly."


def test_streamed_messages_in_anthropics_form(side: Side) -> None:
    body = {
        "model": side.llm, "messages": CHAT, "max_tokens": 24, "temperature": 0, "stream": True,
    }  # fmt: skip
    with httpx.stream("POST", f"{side.openai}/v1/messages", json=body, timeout=60) as answer:
        events = [line[7:] for line in answer.iter_lines() if line.startswith("event: ")]
    assert events[0] == "message_start"
    assert events[-1] == "message_stop"


def test_count_tokens(side: Side) -> None:
    body = {"model": side.llm, "messages": CHAT}
    answer = httpx.post(f"{side.openai}/v1/messages/count_tokens", json=body, timeout=60)
    assert answer.json()["input_tokens"] > 0


def test_tokenize_and_back(side: Side) -> None:
    asked = {"model": side.llm, "prompt": PROMPT}
    tokens = httpx.post(f"{side.openai}/tokenize", json=asked, timeout=60).json()["tokens"]
    asked = {"model": side.llm, "tokens": tokens}
    text = httpx.post(f"{side.openai}/detokenize", json=asked, timeout=60).json()["prompt"]
    assert text.endswith(PROMPT)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": CHAT}),
        ("/v1/completions", {"prompt": PROMPT}),
        ("/v1/responses", {"input": PROMPT}),
    ],
)
def test_an_unknown_model_is_a_404_in_openais_shape(
    side: Side, path: str, asked: dict[str, object]
) -> None:
    body = {"model": "nobody", **asked}
    answer = httpx.post(f"{side.openai}{path}", json=body, timeout=60)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("NotFoundError", "model", 404)
    assert "nobody" in error["message"]


def test_an_unknown_model_is_a_404_in_anthropics_shape(side: Side) -> None:
    body = {"model": "nobody", "messages": CHAT, "max_tokens": 3}
    answer = httpx.post(f"{side.openai}/v1/messages", json=body, timeout=60)
    assert answer.status_code == 404
    assert answer.json()["type"] == "error"


def test_what_the_backend_refuses_reaches_the_client_as_it_is(road: Road) -> None:
    body = {"messages": CHAT, "max_tokens": 10_000}
    answers = [
        httpx.post(f"{side.openai}/v1/chat/completions", json={"model": side.llm, **body})
        for side in (road.gateway, road.direct)
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize("path", ["/v2/rerank", "/v2/embed"])
def test_coheres_calls_of_a_model_of_text_fail_in_vllms_words(road: Road, path: str) -> None:
    asked = {"query": "q", "documents": ["a"], "texts": ["a"], "input_type": "search_query"}
    answers = [
        httpx.post(f"{side.openai}{path}", json={"model": side.llm, **asked}, timeout=60)
        for side in (road.gateway, road.direct)
    ]
    assert answers[0].status_code == answers[1].status_code >= 400
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_what_vllm_refuses_of_anthropics_form_passes(road: Road, path: str) -> None:
    answers = [
        httpx.post(f"{side.openai}{path}", json={"model": side.llm, "messages": 7}, timeout=60)
        for side in (road.gateway, road.direct)
    ]
    assert answers[0].status_code == answers[1].status_code >= 400
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize("stream", [True, False])
def test_a_hang_up_stops_the_work_at_the_backend(road: Road, stream: bool) -> None:
    def running() -> float:
        metrics = httpx.get(f"{road.direct.openai}/metrics").text
        lines = [x for x in metrics.splitlines() if x.startswith("vllm:num_requests_running{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    asked = {"model": "chat", "prompt": PROMPT, "max_tokens": 2000, "ignore_eos": True}
    body = json.dumps(asked | {"stream": stream}).encode()
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    url = httpx.URL(road.gateway.openai)
    with socket.create_connection((url.host, url.port)) as client:
        client.sendall(head + body)
        wait_for(lambda: running() == 1, 10, "vLLM to begin")
    wait_for(lambda: running() == 0, 2, "vLLM to stop")
