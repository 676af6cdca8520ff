"""What the figures were measured on: the machine, and every program's version.

Rules of this room: what can't be found out is said to be unknown; nothing fails here.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from bench.peers import PEERS, ROOT, venvs


def _says(command: Sequence[str]) -> str:
    """Run a command; returns all it wrote, or nothing."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout + ended.stderr


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else "unknown"


def processor() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        return _found(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return "unknown"


def memory() -> str:
    """Return the memory in GiB."""
    with contextlib.suppress(OSError):
        kilobytes = _found(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
        if kilobytes.isdigit():
            return f"{int(kilobytes) / 2**20:.0f} GiB"
    return "unknown"


def describe() -> dict[str, str]:
    """Return the machine in words."""
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "memory": memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def installed(environment: str, distribution: str) -> str:
    """Return the version of a distribution in an environment, or nothing."""
    name = re.sub("[-_.]+", "_", distribution)
    folders = venvs().glob(f"{environment}/lib/python*/site-packages/{name}-*.dist-info")
    versions = [path.name.removesuffix(".dist-info").rpartition("-")[2] for path in folders]
    return versions[0] if versions else ""


def versions() -> dict[str, str]:
    """Return the version of every program that takes part."""
    commit = _says(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]).strip()
    found = {
        "isthmus": f"{metadata.version('isthmus')} ({commit or 'no commit'})",
        "nginx": _found(r"nginx/(\S+)", _says(["nginx", "-v"])),
        "wrk": _found(r"wrk \S*?(\d+\.\d+\.\d+)", _says(["wrk", "-v"])),
    }
    for peer in PEERS:
        if peer.environment:
            version = installed(peer.environment, peer.distribution)
            found[peer.name] = version or "not installed"
    for name in ("uvloop", "httptools", "grpcio", "msgspec"):
        found[name] = metadata.version(name)
    return found
