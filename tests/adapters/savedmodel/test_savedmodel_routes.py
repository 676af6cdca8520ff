"""The REST paths as a table."""

import pytest

from adapters.savedmodel.routes import Target, parse
from adapters.savedmodel.status import Code, ServingError


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("GET", "/v1/models/m", Target("status", "m", None, None)),
        ("GET", "/v1/models/m/versions/12", Target("status", "m", 12, None)),
        ("GET", "/v1/models/m/labels/stable", Target("status", "m", None, "stable")),
        ("GET", "/v1/models/m/metadata", Target("metadata", "m", None, None)),
        ("GET", "/v1/models/m/versions/2/metadata", Target("metadata", "m", 2, None)),
        ("POST", "/v1/models/m:predict", Target("predict", "m", None, None)),
        ("POST", "/v1/models/m/versions/2:predict", Target("predict", "m", 2, None)),
        ("POST", "/v1/models/m/labels/canary:predict", Target("predict", "m", None, "canary")),
        ("POST", "/v1/models/m:classify", Target("classify", "m", None, None)),
        ("POST", "/V1/Models/m/Versions/2:predict", Target("predict", "m", 2, None)),
        ("GET", "/v1/MODELS/Mixed/metadata", Target("metadata", "Mixed", None, None)),
        ("GET", "/v1/models/m/METADATA", Target("status", "m", None, None)),
        ("GET", "/v1/models/a%20b", Target("status", "a b", None, None)),
        ("POST", "/v1/models/a%2Fb%3Ac:predict", Target("predict", "a/b:c", None, None)),
        ("GET", "/v1/models/m/labels/a%2fb", Target("status", "m", None, "a/b")),
        ("GET", f"/v1/models/m/versions/{2**63 - 1}", Target("status", "m", 2**63 - 1, None)),
    ],
)
def test_routes(method: str, path: str, target: Target) -> None:
    assert parse(method, path) == target


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/", Code.NOT_FOUND),
        ("GET", "/v2/models/m", Code.NOT_FOUND),
        ("GET", "/v1", Code.NOT_FOUND),
        ("GET", "/v1/models", Code.INVALID_ARGUMENT),
        ("GET", "/v1/models/m:predict", Code.INVALID_ARGUMENT),
        ("POST", "/v1/models/m", Code.INVALID_ARGUMENT),
        ("POST", "/v1/models/m:explain", Code.INVALID_ARGUMENT),
        ("POST", "/v1/models/m:PREDICT", Code.INVALID_ARGUMENT),
        ("POST", "/v1/models/m/versions/x:predict", Code.INVALID_ARGUMENT),
        ("POST", "/v1/models/m/versions/1/labels/a:predict", Code.INVALID_ARGUMENT),
        ("PUT", "/v1/models/m:predict", Code.INVALID_ARGUMENT),
        ("GET", "/v1/models/a/b/c", Code.INVALID_ARGUMENT),
        ("GET", "/v1/models/m/versions/9223372036854775808", Code.INVALID_ARGUMENT),
        ("GET", "/v1/models/m/versions/" + "9" * 100_000, Code.INVALID_ARGUMENT),
    ],
)
def test_what_is_no_route(method: str, path: str, code: Code) -> None:
    with pytest.raises(ServingError) as caught:
        parse(method, path)
    assert caught.value.code is code
    assert len(caught.value.message) < 500
