"""Cohere's calls as vLLM serves them: OpenAI's way of naming a model, Cohere's way of failing.

An error is an object with a `message` (https://docs.cohere.com/reference/errors).
"""

import msgspec

from gateway.errors import GatewayError
from gateway.protocols.headers import JSON
from gateway.protocols.openai import OpenAI
from gateway.types import Head, Whole


class Cohere(OpenAI):
    """`types.Front` for rerank and embed."""

    def error(self, error: GatewayError) -> Whole:
        """Write `{"message": …}`."""
        body = msgspec.json.encode({"message": error.message})
        return Whole(Head(error.status, (JSON, *error.headers)), body)

    def cut(self, error: GatewayError) -> bytes:
        """Nothing: neither call streams."""
        return b""
