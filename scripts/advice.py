"""What to do when making an environment failed: from a tool's output to one clear sentence.

Rules of this room: pure functions over text; every sentence names the cause and the next step; the
first entry of a table that fits wins, so causes that drag others behind them come first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class Advice(NamedTuple):
    """A pattern (searched in any case) and what to do about it; `{0}` is the pattern's group."""

    pattern: re.Pattern[str]
    sentence: str


def _advice(pattern: str, sentence: str) -> Advice:
    return Advice(re.compile(pattern, re.IGNORECASE), sentence)


_NO_TORCH = (
    "The wheel {0} is not on the default index: add the PyTorch project's CPU wheel index by"
    " PIP_EXTRA_INDEX_URL (its address is on pytorch.org's Get Started page), or name a folder that"
    " holds the wheel in PIP_FIND_LINKS; then run the same command again."
)
KNOWN = (
    _advice(
        r"no space left on device|errno 28|disk quota exceeded",
        "The disk is full: vLLM's environment needs 3 GB and TensorFlow's 2 GB where they are made"
        " (ISTHMUS_VENVS), and pip needs 1 GB more in its temporary folder (TMPDIR).",
    ),
    _advice(
        r"certificate_verify_failed|sslerror",
        "The package index's certificate is not trusted here: set PIP_CERT to the file with your"
        " network's certificate authority.",
    ),
    _advice(
        r"\b(?:401|403|407) client error|http error (?:401|403|407)|proxyerror",
        "The package index or a proxy refused pip: check PIP_INDEX_URL, its credentials and"
        " HTTPS_PROXY.",
    ),
    # The index was reached and has other versions, whatever had to be tried twice before.
    _advice(r"satisfies the requirement (torch==\S+\+cpu) \(from versions: (?!none)", _NO_TORCH),
    _advice(
        r"newconnectionerror|name resolution|failed to establish a new connection"
        r"|network is unreachable|connecttimeout|readtimeout|read timed out|remotedisconnected",
        "The package index can't be reached: check the network and HTTPS_PROXY, or name a mirror"
        " in PIP_INDEX_URL; then run the same command again.",
    ),
    _advice(r"no matching distribution found for (torch==\S+\+cpu)", _NO_TORCH),
    _advice(
        r"package '(\S+)' requires a different python",
        "{0} does not support this Python: run this with python3.11.",
    ),
    _advice(
        r"satisfies the requirement (\S+) \(from versions: none\)",
        "No version of {0} was found: the package index can't be reached from here (check the"
        " network, HTTPS_PROXY and PIP_INDEX_URL), or it lacks {0} (name one that has it in"
        " PIP_EXTRA_INDEX_URL).",
    ),
    _advice(
        r"no matching distribution found for (\S+)",
        "No wheel of {0} fits this machine or is on its package index: name an index that has it"
        " in PIP_EXTRA_INDEX_URL or a folder that holds it in PIP_FIND_LINKS.",
    ),
    _advice(
        r"(?:command|program) '?\S*?(?:gcc|cc|clang|g\+\+|c\+\+)'? failed: no such file"
        r"|unable to (?:find|execute) \S*(?:gcc|cc|clang)|no acceptable c compiler"
        r"|compiler .* not found",
        "A package is built from source and no C compiler was found: install one"
        " (Debian, Ubuntu: apt-get install gcc), or set CC.",
    ),
    _advice(
        r"python\.h: no such file",
        "A package is built from source and Python's headers are missing: install them"
        " (Debian, Ubuntu: apt-get install python3.11-dev).",
    ),
    _advice(
        r"ensurepip is not available|no module named '?(?:ensurepip|venv)",
        "This Python lacks venv: install it (Debian, Ubuntu: apt-get install python3.11-venv).",
    ),
    _advice(
        r"do(?:es)? not match the hashes",
        "A download was damaged: empty pip's cache (pip cache purge) and run the same command"
        " again.",
    ),
    _advice(
        r"permission denied",
        "A folder can't be written: check the owner of the environments' folder (ISTHMUS_VENVS).",
    ),
)

KILLED = "It was killed, most likely for want of memory: free some and run the same command again."
OTHERWISE = "Read the log; to begin again from nothing, run the same command with --fresh."
_NOISE = re.compile(r"^\s*$|^WARNING: (?!Retrying)|^\[notice\]")
_ERROR = re.compile(r"^\s*(?:ERROR|error|fatal|\w*Error|OSError|WARNING: Retrying)\b")


def advise(lines: Sequence[str], status: int) -> str:
    """One sentence for a failed command, from its output and exit status (negative: a signal)."""
    text = "\n".join(lines)
    for known in KNOWN:
        if found := known.pattern.search(text):
            return known.sentence.format(*(group or "" for group in found.groups()))
    return KILLED if status in (-9, 137) else OTHERWISE


def relevant(lines: Sequence[str], most: int = 8) -> list[str]:
    """The last lines that say what went wrong; without such lines, simply the last ones."""
    telling = [line for line in lines if not _NOISE.match(line)]
    errors = [line for line in telling if _ERROR.match(line)]
    return [line[:500] for line in (errors or telling)[-most:]]
