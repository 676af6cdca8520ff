"""Anthropic's Messages as vLLM serves them: OpenAI's way of naming a model, its own errors.

Error types are those of https://docs.anthropic.com/en/api/errors.
"""

import msgspec

from gateway.errors import GatewayError
from gateway.protocols.headers import JSON
from gateway.protocols.openai import OpenAI
from gateway.types import Head, Whole

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    431: "invalid_request_error",
    501: "invalid_request_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Anthropic(OpenAI):
    """`types.Front` for `/v1/messages` and what hangs below it."""

    def error(self, error: GatewayError) -> Whole:
        """Write `{"type": "error", "error": {type, message}}`."""
        return Whole(Head(error.status, (JSON, *error.headers)), _error_body(error))

    def cut(self, error: GatewayError) -> bytes:
        """Write an `error` event."""
        return b"event: error\ndata: %s\n\n" % _error_body(error)


def _error_body(error: GatewayError) -> bytes:
    kind = _TYPES.get(error.status, "api_error")
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": error.message}})
