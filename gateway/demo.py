"""`isthmus demo`: sample calls to real backends, their answers, and how to make them oneself.

Runs against a gateway in the same process, but only through its sockets, as a client would.
Every answer is checked; with `--check` the exit status says whether all were right.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx2

from gateway.app import Gateway, for_ever
from gateway.protocols import wire
from gateway.types import Address

_PROMPT = "Beautiful is"
_SECONDS = 60.0
_MARK = {True: "ok   ", False: "WRONG"}
_FLOAT = 1  # tensorflow.DataType.DT_FLOAT


class Sample(NamedTuple):
    """A held-out image of a digit, 64 values in [0, 1] by rows, and what it shows."""

    pixels: list[float]
    digit: int


class Shown(NamedTuple):
    """What one call showed: how it is made, what came back, and whether that is right."""

    call: str
    answer: str
    right: bool


Step = Callable[[], Awaitable[Shown]]


def samples(folder: Path) -> list[Sample]:
    """Read the images that were held out when the digits model was trained."""
    entries = json.loads((folder / "digits" / "samples.json").read_text())["samples"]
    return [Sample(entry["pixels"], entry["digit"]) for entry in entries]


class Demo:
    """The demonstration. `good` says afterwards whether every answer was right."""

    def __init__(self, stay: bool, environment: Mapping[str, str]) -> None:
        self.good = False
        self._stay = stay
        self._samples = samples(Path(environment.get("ISTHMUS_MODELS", ".models")))

    async def run(self, gateway: Gateway) -> None:
        """Show each call with its answer; then stay up, unless told not to."""
        http, rpc = gateway.addresses["http"], gateway.addresses["grpc"]
        base = f"http://{http}"
        print(f"\nOne gateway, two backends: {base} (HTTP), {rpc} (gRPC)\n")
        async with httpx2.AsyncClient(base_url=base, timeout=_SECONDS, trust_env=False) as client:
            calls = _Calls(client, rpc, self._samples)
            self.good = all([await _show(title, step) for title, step in calls.steps()])
        print("every answer was right" if self.good else "an answer was wrong: see above")
        if self._stay:
            print(_HOW_TO.format(base=base, grpc=rpc, admin=gateway.addresses["admin"]))
            await for_ever(gateway)


async def _show(title: str, step: Step) -> bool:
    try:
        call, answer, right = await step()
    except (httpx2.HTTPError, grpc.aio.AioRpcError, KeyError, IndexError, ValueError) as error:
        call, answer, right = "", f"{type(error).__name__}: {error}", False
    print(f"[{_MARK[right]}] {title}")
    for line in filter(None, call.splitlines()):
        print(f"        {line}")
    print(f"      → {answer}\n")
    return right


class _Calls:
    def __init__(self, client: httpx2.AsyncClient, rpc: Address, images: list[Sample]) -> None:
        self._client = client
        self._rpc = rpc
        self._images = images

    def steps(self) -> list[tuple[str, Step]]:
        """Return the calls, in the order in which they are shown."""
        return [
            ("All models, in OpenAI's form", self._models),
            ("A model's versions, in TF Serving's form", self._versions),
            ("Completion by vLLM", self._completion),
            ("Chat by vLLM", self._chat),
            ("The same chat, streamed", self._streamed_chat),
            ("Predict by TensorFlow over REST, version by label", self._rest_predict),
            ("Predict by TensorFlow over gRPC, version by number", self._grpc_predict),
        ]

    async def _models(self) -> Shown:
        listing = (await self._get("/v1/models"))["data"]
        names = [card["id"] for card in listing]
        return Shown("GET /v1/models", ", ".join(names), names == ["chat", "digits"])

    async def _versions(self) -> Shown:
        status = (await self._get("/v1/models/digits"))["model_version_status"]
        states = {entry["version"]: entry["state"] for entry in status}
        right = states == {"1": "AVAILABLE", "2": "AVAILABLE"}
        return Shown("GET /v1/models/digits", json.dumps(states), right)

    async def _completion(self) -> Shown:
        body = {"model": "chat", "prompt": _PROMPT, "max_tokens": 12, "temperature": 0}
        answer = await self._post("/v1/completions", body)
        text = answer["choices"][0]["text"]
        right = text.startswith(" better than")
        return Shown(_curl("/v1/completions", body), repr(_PROMPT + text), right)

    async def _chat(self) -> Shown:
        answer = await self._post("/v1/chat/completions", _CHAT)
        message = answer["choices"][0]["message"]["content"]
        right = bool(message) and answer["model"] == "tiny-llama"
        return Shown(_curl("/v1/chat/completions", _CHAT), repr(message), right)

    async def _streamed_chat(self) -> Shown:
        whole = (await self._post("/v1/chat/completions", _CHAT))["choices"][0]["message"]
        body = {**_CHAT, "stream": True}
        pieces = []
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    delta = json.loads(line[6:])["choices"][0]["delta"]
                    pieces.append(delta.get("content") or "")
        text = "".join(pieces)
        shown = f"{len(pieces)} pieces: {' | '.join(map(repr, pieces[1:6]))} | …"
        return Shown(_curl("/v1/chat/completions", body), shown, text == whole["content"])

    async def _rest_predict(self) -> Shown:
        path = "/v1/models/digits/labels/stable:predict"
        body = {"instances": [{"pixels": image.pixels} for image in self._images]}
        predictions = (await self._post(path, body))["predictions"]
        found = [_digit(prediction["probabilities"]) for prediction in predictions]
        shown = _curl(path, {"instances": [{"pixels": "…64 values…"}]})
        return Shown(shown, *self._judged(found))

    async def _grpc_predict(self) -> Shown:
        stubs = wire.load()
        request = stubs.PredictRequest()
        request.model_spec.name = "digits"
        request.model_spec.version.value = 2
        tensor = request.inputs["pixels"]
        tensor.dtype = _FLOAT
        for size in (len(self._images), 64):
            tensor.tensor_shape.dim.add().size = size
        for image in self._images:
            tensor.float_val.extend(image.pixels)
        async with grpc.aio.insecure_channel(str(self._rpc)) as channel:
            predict: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            reply = await predict(request.SerializeToString(), timeout=_SECONDS)
        answer = stubs.PredictResponse.FromString(reply)
        rows = _rows(answer.outputs["probabilities"])
        served = f"digits@{answer.model_spec.version.value}"
        text, right = self._judged([_digit(row) for row in rows])
        return Shown("PredictionService/Predict", f"{served}: {text}", right)

    def _judged(self, found: list[int]) -> tuple[str, bool]:
        wanted = [image.digit for image in self._images]
        return f"saw {found}, they are {wanted}", found == wanted

    async def _get(self, path: str) -> Any:
        return (await self._client.get(path)).raise_for_status().json()

    async def _post(self, path: str, body: object) -> Any:
        return (await self._client.post(path, json=body)).raise_for_status().json()


def _digit(probabilities: list[float]) -> int:
    return max(range(len(probabilities)), key=probabilities.__getitem__)


def _rows(tensor: Any) -> list[list[float]]:
    flat = list(tensor.float_val) or list(memoryview(tensor.tensor_content).cast("f"))
    width = tensor.tensor_shape.dim[1].size
    return [flat[start : start + width] for start in range(0, len(flat), width)]


def _curl(path: str, body: object) -> str:
    return f"curl {path} -d '{json.dumps(body, ensure_ascii=False)}'"


_CHAT = {
    "model": "chat",
    "messages": [{"role": "user", "content": "Beautiful is"}],
    "max_tokens": 24,
    "temperature": 0,
}

_HOW_TO = """
Call it yourself:

  curl {base}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "chat", "messages": [{{"role": "user", "content": "Beautiful is"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{base}/v1", api_key="none")
  client.chat.completions.create(model="chat", messages=[{{"role": "user", "content": "Hi"}}])

  import grpc; from tensorflow_serving.apis import prediction_service_pb2_grpc
  stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel("{grpc}"))

Models and where they stand: isthmus models --admin http://{admin}
Ctrl-C ends the gateway and everything that it launched.
"""
