"""Whatever is wrong, no error repeats what may be a secret: keys, digests, credentials in URLs."""

from hashlib import sha256
from pathlib import Path

import pytest
from support.configuring import problems

VLLM = "models: {chat: {adapter: vllm, backends: [http://a:1]}}"


def backend(more: str, adapter: str = "vllm") -> str:
    """A model with one backend, on line 3."""
    return f"models:\n  m: {{adapter: {adapter}, backends: [\n    {{{more}}}]}}\n"


SECRET = "hunter2-8c1d"
SECRET_DIGEST = sha256(SECRET.encode()).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        backend(f"url: http://a, api_key: [{SECRET}]"),
        backend(f"url: http://a, api_key: {{x: {SECRET}}}"),
        backend(f'url: http://a, api_key: "{SECRET}\\n"'),
        backend(f"url: http://a, api_key:{SECRET}"),
        backend(f"url: http://a, apikey: {SECRET}"),
        "models: {m: {adapter: vllm, backends: [\n  api_key:" + SECRET + "]}}",
        "models:\n  m:\n    adapter: vllm\n    backends:\n      - url: http://a\n"
        f"        api_key:{SECRET}\n",
        backend(f"url: http://user:{SECRET}@a"),
        backend(f"url: http://{SECRET}@a"),
        backend(f"url: http://user:{SECRET}@a/x"),
        backend(f"url: http://user:pa/{SECRET}@a"),
        backend(f"url: 'http://a:{SECRET}'"),
        backend(f"url: http://a?key={SECRET}"),
        f"models: {{m: {{adapter: vllm, backends: [{SECRET}]}}}}",
        f"models: {{m: {{adapter: vllm, backends: ['http://u:{SECRET}@a', 'http://u:{SECRET}@a']}}}}",
        backend(f"rest: http://u:{SECRET}@a"),
        backend(f"grpc: u:{SECRET}@a:1", "tensorflow_serving"),
        backend(f"url: http://a, headers: {{authorization: [{SECRET}]}}"),
        backend(f'url: http://a, headers: {{x-key: "{SECRET}\\n"}}'),
        backend(f"url: http://a, headers: {SECRET}"),
        backend(f"launch: {{command: {SECRET}}}"),
        backend(f"launch: {{command: [x], env: {{KEY: [{SECRET}]}}}}"),
        backend(f"launch: {{command: [x], env: {SECRET}}}"),
        f"auth: {{keys: [{{name: a, sha256: {SECRET}}}]}}\n{VLLM}",
        f"auth: {{keys: [{{name: a, sha256: {SECRET_DIGEST}0}}]}}\n{VLLM}",
        f"auth: {{keys: [{{name: a, sha256: [{SECRET_DIGEST}]}}]}}\n{VLLM}",
        f"auth: {{keys: [{{name: a, sha256:{SECRET_DIGEST}}}]}}\n{VLLM}",
        f"auth:\n  keys:\n  - {{name: a, sha256: {SECRET_DIGEST}}}\n"
        f"  - {{name: b, sha256: {SECRET_DIGEST}}}\n{VLLM}",
        f"auth: {{admin: {SECRET_DIGEST}x}}\n{VLLM}",
        f"auth: {{admin: {{sha256: 5{SECRET}}}}}\n{VLLM}",
        backend("url: http://a, api_key: ${KEY:-${KEY}}"),
        backend("url: http://a, api_key: '${KEY}\u00e9'"),
        backend("url: 'http://u:${KEY}@a'"),
        backend("url: http://a, api_key: ${NUMBER}"),
        backend("url: http://a, headers: {x: ${NUMBER}}"),
    ],
)
def test_secrets_are_never_told(tmp_path: Path, text: str) -> None:
    found = problems(tmp_path, text, KEY=SECRET, NUMBER="4815162342")
    assert found
    for line in found:
        assert SECRET not in line
        assert SECRET_DIGEST not in line
        assert "4815162342" not in line
