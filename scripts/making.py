"""Make one environment: a venv that is kept where it will do, filled, checked and stamped.

Rules of this room: the stamp comes off before anything changes and goes on after the last check;
a folder that was not made here is never removed; one run at a time works on an environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import platform
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import stamps
from progress import Progress
from steps import UNFINISHED, Failed, Runner

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
PYTHON = "{}.{}".format(*sys.version_info[:2])
BARE = {"bin", "include", "lib", "lib64"}  # what `python -m venv` makes before its pyvenv.cfg


@dataclass(frozen=True)
class Environment:
    """How one environment is made.

    Attributes:
        requirements: file in `requirements/`; complete, so it is installed without resolving.
        checkout: what of this checkout is installed, editable: "." or ".[dev]"; empty: nothing.
        unwanted: distributions that must not be there.
        alias: (name, distribution, suffix): metadata that also names `distribution` `name`, its
            version followed by `suffix`.
        checks: commands in the venv's bin folder that must succeed; the last prints versions.
        python: the one Python version that will do, or empty.
    """

    checks: tuple[tuple[str, ...], ...]
    requirements: str = ""
    checkout: str = ""
    unwanted: tuple[str, ...] = ()
    alias: tuple[str, str, str] | None = None
    python: str = ""


def inputs(environment: Environment) -> str:
    """Digest of all that decides what is in an environment."""
    import tomllib

    read: dict[str, object] = {"recipe": asdict(environment), "python": PYTHON}
    read["machine"] = platform.machine()
    if environment.requirements:
        read["requirements"] = (REQUIREMENTS / environment.requirements).read_text()
    if environment.checkout:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        setuptools = project.get("tool", {}).get("setuptools")
        read["project"] = [project["build-system"], project["project"], setuptools, str(ROOT)]
    return stamps.digest(read)


@dataclass
class Maker:
    """Makes one environment.

    Attributes:
        name: of the environment.
        environment: how it is made.
        folder: where it is, or will be.
        progress: where its steps are shown.
        checkout: held while this checkout is built, which writes into it: one at a time.
    """

    name: str
    environment: Environment
    folder: Path
    progress: Progress
    checkout: asyncio.Lock

    def ready(self) -> bool:
        """Whether the environment is there, checked, and of today's inputs (or adopted)."""
        stamp = stamps.read_stamp(self.folder)
        fits = stamp.get("adopted") is True or stamp.get("inputs") == inputs(self.environment)
        return fits and (self.folder / "bin" / "python").exists()

    async def make(self, fresh: bool) -> None:
        """Bring the environment up to date, from nothing where `fresh`.

        Raises:
            Failed: it could not be made.
        """
        if self.environment.python not in ("", PYTHON):
            wanted = self.environment.python
            raise Failed(f"needs Python {wanted}, this is {PYTHON}: run this with python{wanted}.")
        if self.ready() and not fresh:
            self.progress.end(self.name, "ready")
            return
        async with self._runner() as runner:
            if self.ready() and not fresh:  # whoever had the lock made it
                self.progress.end(self.name, "ready")
                return
            await self._venv(runner, fresh)
            (self.folder / stamps.STAMP).unlink(missing_ok=True)
            await self._fill(runner)
            await self._check(runner, adopted=False)

    async def adopt(self) -> None:
        """Check an environment that its owner made, and stamp it; nothing is installed.

        Raises:
            Failed: it is not there, or a check failed.
        """
        if not (self.folder / "bin" / "python").exists():
            raise Failed(f"{self.folder} is no virtual environment: make it or link it there.")
        async with self._runner() as runner:
            await self._check(runner, adopted=True)

    @contextlib.asynccontextmanager
    async def _runner(self) -> AsyncIterator[Runner]:
        """Wait for this environment's lock; yields the means to run commands, with an empty log."""
        log = self.folder.parent / "logs" / f"{self.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / f".{self.name}.lock").open("a") as file:
            waiting = "waiting for another run that is making it"
            while not _try_lock(file):
                if self.name not in self.progress.running:
                    self.progress.begin(self.name, waiting)
                await asyncio.sleep(0.1)
            log.write_text("")
            yield Runner(self.name, self.folder, log, self.progress, file)

    async def _venv(self, runner: Runner, fresh: bool) -> None:
        """Have a venv with a working pip; keep the one that is there where it will do."""
        if self.folder.exists():
            if not fresh and await self._usable(runner):
                return
            entries = set(os.listdir(self.folder))
            foreign = "pyvenv.cfg" not in entries and not entries <= BARE
            own = stamps.read_stamp(self.folder).get("adopted") or self.folder.is_symlink()
            if foreign or own:
                raise Failed(
                    f"{self.folder} was not made here and is not removed: move it away, or run"
                    " with --adopt to use it as it is."
                )
            self.progress.begin(self.name, "removing the old environment")
            await asyncio.to_thread(shutil.rmtree, self.folder)
        command = [sys.executable, "-m", "venv", str(self.folder)]
        await runner.run("making a virtual environment", command, ROOT)

    async def _usable(self, runner: Runner) -> bool:
        """Whether the venv is whole, its Python of our version, and pip in it."""
        if (self.folder / UNFINISHED).exists():
            return False
        code = f"import pip, sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
        with contextlib.suppress(Failed):
            await runner.run("looking at what is there", self._bin("python", "-c", code), ROOT)
            return True
        return False

    async def _fill(self, runner: Runner) -> None:
        """Install what the environment holds, and nothing that it must not."""
        environment = self.environment
        pip = self._bin("python", "-m", "pip")
        # Byte code is written when a module is first imported; most modules here never are.
        install = [*pip, "install", "--no-compile"]
        if environment.requirements:
            file = str(REQUIREMENTS / environment.requirements)
            what = f"installing {environment.requirements}"
            await runner.run(what, [*install, "--no-deps", "-r", file], ROOT)
        if environment.checkout:
            async with self.checkout:
                with stamps.locked(self.folder.parent / ".checkout.lock"):
                    command = [*install, "-e", environment.checkout]
                    await runner.run("installing this checkout", command, ROOT)
        if there := [name for name in environment.unwanted if self._metadata(name)]:
            await runner.run(
                f"removing {', '.join(there)}", [*pip, "uninstall", "-y", *there], ROOT
            )
        if environment.alias:
            self._write_alias(*environment.alias)

    def _metadata(self, distribution: str) -> list[Path]:
        """The metadata folders of an installed distribution."""
        name = distribution.replace("-", "_")
        return list(self.folder.glob(f"lib/python*/site-packages/{name}-*.dist-info"))

    def _write_alias(self, name: str, distribution: str, suffix: str) -> None:
        """Metadata by which an installed distribution is found under a second name."""
        (original,) = self._metadata(distribution)
        version = original.name.removesuffix(".dist-info").partition("-")[2] + suffix
        for old in self._metadata(name):
            shutil.rmtree(old)
        folder = original.with_name(f"{name}-{version}.dist-info")
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(metadata)
        (folder / "INSTALLER").write_text("isthmus\n")
        files = ("METADATA", "INSTALLER", "RECORD")
        (folder / "RECORD").write_text("".join(f"{folder.name}/{file},,\n" for file in files))

    async def _check(self, runner: Runner, adopted: bool) -> None:
        """Run the checks, and only then call the environment ready."""
        versions = ""
        for number, command in enumerate(self.environment.checks, 1):
            what = f"checking ({number} of {len(self.environment.checks)})"
            versions = (await runner.run(what, self._bin(*command), ROOT))[-1]
        stamp: dict[str, object] = {"inputs": inputs(self.environment), "versions": versions}
        stamps.write_stamp(self.folder, {**stamp, "adopted": adopted})
        self.progress.end(self.name, f"ready: {versions}")

    def _bin(self, program: str, *arguments: str) -> list[str]:
        return [str(self.folder / "bin" / program), *arguments]


def _try_lock(file: IO[str]) -> bool:
    """Take the lock on an open file if it is free."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
