"""Stamps, locks and whole folders: how every script here knows that its work is already done.

Rules of this room: standard library only; a stamp is written last, so what has a stamp is whole;
a folder is built beside its place and renamed into it, so a half-made one is never used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import IO

STAMP = ".isthmus-stamp.json"


def digest(inputs: object) -> str:
    """SHA-256 (hex) of `inputs`, anything that JSON can write; the order of keys is no matter."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def read_stamp(folder: Path) -> dict[str, object]:
    """The stamp of `folder`, or an empty one when it is missing or unreadable."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(folder: Path, stamp: dict[str, object]) -> None:
    """Put `stamp` into `folder` in one step: a reader sees the old one, the new one or none."""
    half = folder / f"{STAMP}.{os.getpid()}"
    half.write_text(json.dumps(stamp, indent=2) + "\n")
    half.replace(folder / STAMP)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Hold `path` as a lock between processes; waits for whoever holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def recipe(script: Path, distributions: tuple[str, ...]) -> str:
    """Digest of how a script makes its folder: its own source and the versions of its tools."""
    versions: dict[str, str] = {}
    for name in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return digest({"source": script.read_text(), "versions": versions})


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != STAMP)
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def is_whole(folder: Path, wanted: str) -> bool:
    """Whether `folder` was made by the recipe `wanted` and still has all its files, in full."""
    stamp = read_stamp(folder)
    return stamp.get("recipe") == wanted and stamp.get("files") == _sizes(folder)


@contextlib.contextmanager
def whole_folder(target: Path, wanted: str) -> Iterator[Path]:
    """Yield an empty folder to fill; on success stamp it and rename it to `target`.

    On an exception `target` stays as it was. Call it with the lock of `target` held.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}."
    for left_over in target.parent.glob(f"{prefix}*.half"):  # of a run that was killed
        shutil.rmtree(left_over)
    half = Path(tempfile.mkdtemp(prefix=prefix, suffix=".half", dir=target.parent))
    try:
        half.chmod(0o755)
        yield half
        write_stamp(half, {"recipe": wanted, "files": _sizes(half)})
        if target.exists():
            target.rename(half.with_name(f"{half.name}.old.half"))
        half.rename(target)
    finally:
        for left_over in (half, half.with_name(f"{half.name}.old.half")):
            shutil.rmtree(left_over, ignore_errors=True)


def make_folder(
    target: Path,
    script: Path,
    distributions: tuple[str, ...],
    make: Callable[[Path], None],
    say: Callable[[str], None],
) -> None:
    """Have `make` fill `target`, unless it is whole and of the same recipe; one process at a time.

    The recipe is the source of `script` and the versions of the `distributions` that it uses.
    """
    wanted = recipe(script, distributions)
    with locked(target.with_name(f".{target.name}.lock")):
        if is_whole(target, wanted):
            say(f"ready in {target}")
            return
        started = time.monotonic()
        with whole_folder(target, wanted) as folder:
            make(folder)
    say(f"made in {target} in {time.monotonic() - started:.1f} s")
