"""What the command line refuses, before any TensorFlow: one line, exit 1 or 2."""

import subprocess
import sys
from pathlib import Path

import pytest

NOTICE = (
    "isthmus savedmodel-server: stands in for TensorFlow Serving in development; "
    "do not run it in production\n"
)
# Packages that may be missing here are pretended to be installed; none is imported on these paths.
_PRETEND = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == {missing!r} else find("json")
from adapters.savedmodel.cli import main
sys.exit(main(sys.argv[1:]))
"""


def _run(*arguments: str, missing: str = "") -> "subprocess.CompletedProcess[str]":
    program = _PRETEND.format(missing=missing)
    root = Path(__file__).resolve().parents[3]
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    result = _run("--model", f"m={tmp_path / 'absent'}")
    assert result.returncode == 1
    assert result.stdout == NOTICE
    assert result.stderr.count("\n") == 1
    assert f"--model m: {tmp_path / 'absent'} is no directory; make it" in result.stderr


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    result = _run("--model", f"m={tmp_path}", "--model", f"m={tmp_path}")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "named twice" in result.stderr


def test_models_come_from_arguments_or_from_a_file_and_not_from_both(tmp_path: Path) -> None:
    both = _run("--model", f"m={tmp_path}", "--model-config-file", "models.config")
    versions = _run("--model-config-file", "models.config", "--versions", "all")
    for result in (_run(), both):
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert (
            "give either --model NAME=DIR, as often as needed, or --model-config" in result.stderr
        )
    assert versions.returncode == 1
    assert "say model_version_policy in it" in versions.stderr


@pytest.mark.parametrize("package", ["tensorflow", "tensorflow_serving"])
def test_a_missing_package_says_how_to_install_it(tmp_path: Path, package: str) -> None:
    result = _run("--model", f"m={tmp_path}", missing=package)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert package in result.stderr
    assert "pip install tensorflow-cpu" in result.stderr
    assert "--no-deps tensorflow-serving-api" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "no-folder"],
        ["--model", "a/b=."],
        ["--model", "m=.", "--rest", "8501"],
        ["--model", "m=.", "--grpc", "localhost:99999"],
        ["--model", "m=.", "--versions", "newest"],
        ["--model", "m=.", "--poll", "0"],
        ["--model", "m=.", "--poll", "nan"],
        ["--model", "m=.", "--threads", "0"],
        ["--model", "m=.", "--json-depth", "513"],
        ["--model", "m=.", "--max-body", "1MB"],
        ["--model", "m=.", "--enable_model_warmup=maybe"],
        ["--model", "m=.", "--model-config-file-poll-wait-seconds", "-1"],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    result = _run(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
