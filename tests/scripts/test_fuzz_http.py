"""The gateway and nginx, told the same mutated bytes, frame them alike or refuse them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from fuzz_http import REFUSED, Codec, Saw, digest, disagree  # noqa: E402

A, B = digest(b"a"), digest(b"b")
ENOUGH = 100
"""Bodies that a run must have compared, to have said anything."""


@pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None, reason="no nginx"
)
def test_nginx_and_the_gateway_agree_or_one_of_them_refuses() -> None:
    ran = subprocess.run(
        [sys.executable, SCRIPTS / "fuzz_http.py", "500", "7"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "500 streams, seed 7: 0 disagreements" in ran.stdout
    compared = next(line for line in ran.stdout.splitlines() if "bodies compared" in line)
    assert int(compared.split()[0]) > ENOUGH


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Saw((A, B), False), Saw((A, B), False), False),
        (Saw((A, ""), False), Saw(("", B), False), False),
        (Saw((A,), False), Saw((B,), False), True),
        (Saw((A,), False), Saw((B,), True), True),
        (Saw((A,), False), Saw((A, B), False), True),
        (Saw((A,), True), Saw((A, B), False), False),
        (Saw((A,), False), Saw((A, REFUSED), True), False),
        (Saw((A,), False), Saw((A, REFUSED), False), True),
        (Saw((A,), False), Saw((A, B, REFUSED), True), True),
        (Saw((), False), Saw(("",), True), True),
        (Saw((REFUSED,), True), Saw((A, B), False), False),
    ],
)
def test_what_counts_as_a_disagreement(one: Saw, other: Saw, expected: bool) -> None:
    assert disagree(one, other) is expected
    assert disagree(other, one) is expected


def test_a_reader_that_believes_the_wrong_length_would_be_found() -> None:
    body = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
    right = Codec().saw([head + body])
    wrong = Codec().saw([head.replace(b"%d" % len(body), b"0") + body])
    assert right.items == (digest(body),)
    assert wrong.items == (digest(b""), digest(b""))
    assert disagree(right, wrong)
