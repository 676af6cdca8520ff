"""Server-sent events, as far as the gateway looks into them: is the first one an error.

vLLM answers 200 before its engine has done anything, and tells of a dead engine in the stream.
The shapes are OpenAI's (`data: {"error": {…}}`) and Anthropic's (`event: error`).
"""

from gateway.types import Headers

CONTENT_TYPE = b"text/event-stream"
_BLANK = b" \t\r"
_FORMS = (b'data:{"error":', b'data:{"type":"error"', b"event:error\n")
_NULL = b"null"
_ENOUGH = 4 * max(len(form) for form in _FORMS)


def is_stream(headers: Headers) -> bool:
    """Whether an answer with these fields is a stream of events."""
    for name, value in headers:
        if name == b"content-type":
            return value.startswith(CONTENT_TYPE)
    return False


def begins_with_error(start: bytes) -> bool | None:
    """Whether a stream that starts so begins with an error; None: more of it must be seen.

    An `error` that is null is none. A comment is a beginning like any other.
    """
    text = start[:_ENOUGH].translate(None, _BLANK)
    for form in _FORMS:
        if text.startswith(form):
            return _tells(form, text[len(form) :])
        if len(start) < _ENOUGH and form.startswith(text):
            return None
    return False


def _tells(form: bytes, value: bytes) -> bool | None:
    if not form.endswith(b":"):
        return True
    if len(value) < len(_NULL) and _NULL.startswith(value):
        return None
    return not value.startswith(_NULL)
