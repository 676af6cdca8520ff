"""Responses by id: each call that names one goes to the backend that holds it."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from support import GatewayProcess, HttpUpstream, Recorded, digest, events, serving, sized, until

A, B, C = "sk-a", "sk-b", "sk-c"
PATH = "/v1/responses"
NO_SUCH = {"error": {"message": "not found", "type": "invalid_request_error", "code": 404}}


class Memory:
    """Answers as one vLLM does that keeps its responses."""

    def __init__(self, upstream: HttpUpstream, name: str) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.upstream = upstream
        self.name = name
        upstream.otherwise(self.answer)

    def keep(self, response_id: str, model: str = "served", **more: Any) -> dict[str, Any]:
        text = {"type": "output_text", "text": f"{response_id} at {self.name}", "annotations": []}
        message = {"type": "message", "id": "msg", "role": "assistant", "status": "completed"}
        self.kept[response_id] = {
            "id": response_id,
            "object": "response",
            "created_at": 1,
            "model": model,
            "output": [{**message, "content": [text]}],
            "status": "completed",
            **more,
        }
        return self.kept[response_id]

    def answer(self, request: Recorded) -> Any:
        path, _, query = request.path.partition("?")
        if path == PATH:
            return self._create(request.json())
        response_id = path.removeprefix(f"{PATH}/").removesuffix("/cancel")
        if response_id not in self.kept:
            return sized(NO_SUCH, "404 Not Found")
        if path.endswith("/cancel"):
            self.kept[response_id]["status"] = "cancelled"
        if "stream=true" in query:
            return self._events(self.kept[response_id])
        return sized(self.kept[response_id])

    def _create(self, asked: Any) -> Any:
        before = asked.get("previous_response_id")
        if before is not None and before not in self.kept:
            return sized(NO_SUCH, "404 Not Found")
        made = self.keep(
            f"resp_{self.name}{len(self.kept)}",
            asked["model"],
            status="in_progress" if asked.get("background") else "completed",
            previous_response_id=before,
        )
        return self._events(made) if asked.get("stream") else sized(made)

    def _events(self, response: dict[str, Any]) -> Any:
        pieces = []
        for number, kind in enumerate(("response.created", "response.completed")):
            event = {"response": response, "sequence_number": number, "type": kind}
            pieces.append(f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode())
        first, second = pieces[0][:30], pieces[0][30:]
        return events(first, second, pieces[1])


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream,
    second_upstream: HttpUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    upstream.names, second_upstream.names = ["served", "own"], ["served"]
    models = {
        "chat": {
            "adapter": "vllm",
            "served_name": "served",
            "versions": {
                1: {"backends": [upstream.url, second_upstream.url]},
                2: {"backends": [upstream.url]},
            },
            "labels": {"stable": 1},
        },
        "own": {"adapter": "vllm", "backends": [upstream.url]},
    }
    auth = {
        "keys": [
            {"name": "a", "sha256": digest(A)},
            {"name": "b", "sha256": digest(B)},
            {"name": "c", "sha256": digest(C), "models": ["own"]},
        ]
    }
    with serving(tmp_path_factory.mktemp("responses"), models, auth=auth) as running:
        yield running


@pytest.fixture
def first(upstream: HttpUpstream) -> Memory:
    return Memory(upstream, "first")


@pytest.fixture
def second(second_upstream: HttpUpstream) -> Memory:
    return Memory(second_upstream, "second")


@pytest.fixture
def client(gateway: GatewayProcess, first: Memory, second: Memory) -> Iterator[openai.OpenAI]:
    with official(gateway, A) as made:
        yield made


def official(gateway: GatewayProcess, key: str) -> openai.OpenAI:
    url = f"http://127.0.0.1:{gateway.port('http')}/v1"
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=15)


def asked(*memories: Memory) -> list[str]:
    return sorted(request.line for memory in memories for request in memory.upstream.requests)


def made_at(client: openai.OpenAI, memory: Memory, **more: Any) -> str:
    """Create responses until one is held there; forget what was recorded on the way."""
    for _ in range(64):
        response = client.responses.create(model="chat", input="hi", **more)
        if response.id in memory.kept:
            memory.upstream.requests.clear()
            return response.id
    raise AssertionError("64 calls in a row went elsewhere")


def test_each_is_retrieved_where_it_is_held(
    client: openai.OpenAI, first: Memory, second: Memory
) -> None:
    ids = [made_at(client, first), made_at(client, second)]
    ids += [client.responses.create(model="chat", input="hi").id for _ in range(6)]
    first.upstream.requests.clear()
    second.upstream.requests.clear()
    for response_id in ids:
        holder = first if response_id in first.kept else second
        found = client.responses.retrieve(response_id)
        assert found.output_text == f"{response_id} at {holder.name}"
    assert asked(first, second) == sorted(f"GET {PATH}/{one}" for one in ids)  # none asked twice


def test_a_streams_response_is_noted(client: openai.OpenAI, first: Memory, second: Memory) -> None:
    for _ in range(4):
        with client.responses.create(model="chat", input="hi", stream=True) as stream:
            kinds = [event.type for event in stream]
        assert kinds == ["response.created", "response.completed"]
    ids = [*first.kept, *second.kept]
    first.upstream.requests.clear()
    second.upstream.requests.clear()
    for response_id in ids:
        assert response_id in client.responses.retrieve(response_id).output_text
    assert len(asked(first, second)) == len(ids) == 4


def test_the_query_travels(client: openai.OpenAI, second: Memory) -> None:
    response_id = made_at(client, second)
    with client.responses.retrieve(response_id, stream=True, starting_after=0) as stream:
        assert [event.type for event in stream][-1] == "response.completed"
    path, _, query = second.upstream.only().path.partition("?")
    assert path == f"{PATH}/{response_id}"
    assert sorted(query.split("&")) == ["starting_after=0", "stream=true"]


def test_a_background_response_is_cancelled_where_it_runs(
    client: openai.OpenAI, gateway: GatewayProcess, second: Memory
) -> None:
    response_id = made_at(client, second, background=True)
    assert client.responses.retrieve(response_id).status == "in_progress"
    assert client.responses.cancel(response_id).status == "cancelled"
    assert asked(second) == [
        f"GET {PATH}/{response_id}",
        f"POST {PATH}/{response_id}/cancel",
    ]
    answer = gateway.http.post(f"{PATH}/{response_id}/cancel", b"", {"x-api-key": A})
    assert answer.headers["x-isthmus-model"] == "chat@1"
    labels = {"model": "chat", "version": "1", "operation": "cancel_response", "tenant": "a"}
    until(lambda: gateway.total("isthmus_requests_total", code="200", **labels) >= 2)


def test_an_unknown_id_is_found_by_asking_once(
    client: openai.OpenAI, first: Memory, second: Memory
) -> None:
    second.keep("resp_from_before")
    for _ in range(2):
        found = client.responses.retrieve("resp_from_before")
        assert found.output_text == "resp_from_before at second"
    line = f"GET {PATH}/resp_from_before"
    assert asked(first) == [line]
    assert asked(second) == [line] * 3  # asked once, and two answers


def test_an_unknown_id_is_cancelled(client: openai.OpenAI, first: Memory, second: Memory) -> None:
    second.keep("resp_running", status="in_progress")
    assert client.responses.cancel("resp_running").status == "cancelled"
    assert asked(first) == [f"GET {PATH}/resp_running"]  # only who holds it is told to cancel


@pytest.mark.parametrize("method", ["retrieve", "cancel"])
def test_an_id_that_nobody_holds(
    client: openai.OpenAI, first: Memory, second: Memory, method: str
) -> None:
    with pytest.raises(openai.NotFoundError, match="no backend here holds") as caught:
        getattr(client.responses, method)("resp_nobody")
    assert caught.value.body == {
        "message": caught.value.body["message"],  # type: ignore[index]
        "type": "NotFoundError",
        "param": "response_id",
        "code": 404,
    }
    assert asked(first, second) == [f"GET {PATH}/resp_nobody"] * 2


def test_a_backend_that_cannot_say_is_no_no(
    client: openai.OpenAI, gateway: GatewayProcess, first: Memory, second: Memory
) -> None:
    second.upstream.otherwise(lambda _: sized({}, "500 Internal Server Error"))
    with pytest.raises(openai.InternalServerError, match="1 of 2 backends could not be asked"):
        client.responses.retrieve("resp_nobody")
    first.keep("resp_after_all")
    assert client.responses.retrieve("resp_after_all").id == "resp_after_all"
    second.upstream.otherwise(lambda _: sized({}, "501 Not Implemented"))
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_nobody")
    gateway.idle()


def test_another_tenants_response_is_not_there(
    client: openai.OpenAI, gateway: GatewayProcess, first: Memory, second: Memory
) -> None:
    response_id = made_at(client, second)
    first.upstream.requests.clear()
    with official(gateway, B) as other:
        for call in (other.responses.retrieve, other.responses.cancel):
            with pytest.raises(openai.NotFoundError, match="no backend here holds"):
                call(response_id)
        with pytest.raises(openai.NotFoundError, match="no backend here holds"):
            other.responses.create(model="chat", input="hi", previous_response_id=response_id)
    assert asked(first, second) == []
    assert response_id not in gateway.log()
    answer = gateway.http.get(f"{PATH}/{response_id}")
    assert answer.status == 401


def test_a_repeated_id_does_not_take_a_response_over(
    client: openai.OpenAI, gateway: GatewayProcess, first: Memory, second: Memory
) -> None:
    response_id = made_at(client, second)
    # vLLM lets a client choose its response's id.
    first.upstream.answer(sized({"id": response_id, "object": "response"}))
    with official(gateway, B) as other:
        other.responses.create(model="chat@2", input="hi")
        with pytest.raises(openai.NotFoundError):
            other.responses.retrieve(response_id)
    assert client.responses.retrieve(response_id).id == response_id


def test_what_another_model_made_is_not_shown_to_who_may_not_use_it(
    gateway: GatewayProcess, first: Memory, second: Memory
) -> None:
    first.keep("resp_of_chat")
    first.keep("resp_of_own", "own")
    with official(gateway, C) as client:
        for _ in range(2):
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve("resp_of_chat")
        assert client.responses.retrieve("resp_of_own").model == "own"
    assert asked(second) == []  # none of its models is this caller's
    for key in (A, B):  # who asks first is not taken for its owner
        with official(gateway, key) as client:
            assert client.responses.retrieve("resp_of_chat").id == "resp_of_chat"
            assert client.responses.retrieve("resp_of_own").id == "resp_of_own"


# ── previous_response_id ──


def test_the_next_turn_goes_where_the_last_one_is_held(
    client: openai.OpenAI, first: Memory, second: Memory
) -> None:
    response_id = made_at(client, second)
    first.upstream.requests.clear()
    for _ in range(6):
        response_id = client.responses.create(
            model="chat", input="and?", previous_response_id=response_id
        ).id
        assert response_id in second.kept
    assert asked(first) == []


def test_a_split_does_not_move_a_conversation(
    client: openai.OpenAI, gateway: GatewayProcess, first: Memory, second: Memory
) -> None:
    made = client.responses.create(model="chat@2", input="hi")
    turn = {"model": "chat", "input": "and?", "previous_response_id": made.id}
    answer = gateway.http.post(PATH, turn, {"x-api-key": A})
    assert (answer.status, answer.headers["x-isthmus-model"]) == (200, "chat@2")


def test_the_next_turn_finds_what_is_not_known(
    client: openai.OpenAI, first: Memory, second: Memory
) -> None:
    second.keep("resp_earlier")
    made = client.responses.create(model="chat", input="?", previous_response_id="resp_earlier")
    assert made.id in second.kept
    with pytest.raises(openai.NotFoundError, match="not found"):  # the backend's own words
        client.responses.create(model="chat", input="?", previous_response_id="resp_nowhere")


def test_a_model_that_is_not_served_there_is_refused(
    client: openai.OpenAI, first: Memory, second: Memory
) -> None:
    response_id = made_at(client, second)
    for model in ("own", "chat@2"):
        with pytest.raises(openai.NotFoundError, match=r"held by a backend of chat@1, which does"):
            client.responses.create(model=model, input="?", previous_response_id=response_id)
    here = made_at(client, first)
    made = client.responses.create(model="chat@2", input="?", previous_response_id=here)
    assert made.id in first.kept  # both versions live there


def test_a_holder_that_is_gone_is_said(
    client: openai.OpenAI, gateway: GatewayProcess, first: Memory, second: Memory
) -> None:
    response_id = made_at(client, second)
    second.upstream.healthy = False
    try:
        path = f"{PATH}/{response_id}"
        key = {"x-api-key": A}
        until(lambda: gateway.http.get(path, key).status == 503, "the backend is seen down")
        with pytest.raises(openai.InternalServerError, match="no other has it") as caught:
            client.responses.create(model="chat", input="?", previous_response_id=response_id)
        assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (
            503,
            "1",
        )
        client.responses.create(model="chat", input="without it")
    finally:
        second.upstream.healthy = True
    until(lambda: gateway.http.get(path, key).status == 200, "the backend is seen up")
