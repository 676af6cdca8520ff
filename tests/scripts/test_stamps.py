"""Whole folders: what scripts/stamps.py promises to the scripts that make models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
MAKER = """
import os, sys
from pathlib import Path
import stamps

def make(folder):
    (folder / "one").write_text("1")
    if os.environ.get("FAIL") == "kill":
        os.kill(os.getpid(), 9)
    if os.environ.get("FAIL") == "raise":
        raise RuntimeError("no good")
    (folder / "two").write_text("2")

stamps.make_folder(Path(sys.argv[1]), Path(__file__), ("pytest",), make, print)
"""


@pytest.fixture
def maker(tmp_path: Path) -> Path:
    script = tmp_path / "maker.py"
    script.write_text(MAKER)
    return script


def run(maker: Path, target: Path, fail: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(maker), str(target)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), "FAIL": fail},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("fail", ["kill", "raise"])
def test_a_half_made_folder_is_never_seen(maker: Path, tmp_path: Path, fail: str) -> None:
    target = tmp_path / "models" / "some"
    assert run(maker, target, fail).returncode != 0
    assert not target.exists()
    assert "made in" in run(maker, target).stdout
    assert names(target) == {"one", "two"}
    assert sorted(path.name for path in target.parent.iterdir()) == [".some.lock", "some"]


def test_the_second_time_it_is_ready(maker: Path, tmp_path: Path) -> None:
    target = tmp_path / "some"
    run(maker, target)
    assert "ready in" in run(maker, target).stdout


def test_a_folder_that_lost_a_file_is_made_again(maker: Path, tmp_path: Path) -> None:
    target = tmp_path / "some"
    run(maker, target)
    (target / "one").write_text("")
    assert "made in" in run(maker, target).stdout
    assert (target / "one").read_text() == "1"


def test_another_recipe_replaces_it_and_a_failure_keeps_it(maker: Path, tmp_path: Path) -> None:
    target = tmp_path / "some"
    run(maker, target)
    maker.write_text(MAKER.replace('"2"', '"two"'))
    assert run(maker, target, "raise").returncode != 0
    assert (target / "two").read_text() == "2"
    assert "made in" in run(maker, target).stdout
    assert (target / "two").read_text() == "two"
