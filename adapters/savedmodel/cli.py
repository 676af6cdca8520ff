"""The command line of the local SavedModel server: arguments in, exit status out.

Everything that can be refused without TensorFlow is refused here, with one line that says what to
do.
"""

import argparse
import asyncio
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from adapters.savedmodel.status import ServingError
from adapters.savedmodel.versions import Policy, parse_policy
from adapters.savedmodel.watch import ModelSource

PROGRAM = "isthmus savedmodel-server"
_MAX_DEPTH = 512
NOTICE = f"{PROGRAM}: stands in for TensorFlow Serving in development; do not run it in production"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NEEDED = (
    "tensorflow",
    "tensorflow_serving",
    "numpy",
    "uvicorn",
    "httptools",
    "uvloop",
    "msgspec",
    "grpc",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server.

    Returns the exit status: 0 after SIGTERM or SIGINT, 1 where it can't start.
    """
    arguments = _parser().parse_args(argv)
    _tell(sys.stdout, NOTICE)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return _fail(
            f"{', '.join(missing)} not installed; install with: pip install tensorflow-cpu uvicorn "
            "httptools uvloop "
            "msgspec grpcio && pip install --no-deps tensorflow-serving-api"
        )
    problem = _problem(arguments)
    if problem:
        return _fail(problem)
    try:
        sources = _sources(arguments)
    except ServingError as error:
        return _fail(f"--model-config-file: {error.code.name}: {error.message}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(message)s"))
    log = logging.getLogger("isthmus.savedmodel")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return _run(arguments, sources)


def _sources(arguments: argparse.Namespace) -> tuple[ModelSource, ...]:
    if arguments.model_config_file is None:
        policy = arguments.versions or Policy(latest=1)
        return tuple(ModelSource(name, base, policy) for name, base in arguments.model)
    # Imported here, after the check above, since it needs the stubs.
    from adapters.savedmodel.model_config import read_file

    return read_file(arguments.model_config_file)


def _run(arguments: argparse.Namespace, sources: tuple[ModelSource, ...]) -> int:
    # gRPC's core would add lines of its own to ours when an address is taken.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Imported here, after the check above, since these rooms need the packages it looks for.
    import uvloop

    from adapters.savedmodel.server import Options, StartError, serve

    options = Options(
        sources=sources,
        grpc=arguments.grpc,
        rest=arguments.rest,
        poll=arguments.poll,
        threads=arguments.threads,
        max_body=arguments.max_body,
        json_depth=arguments.json_depth,
        config_file=arguments.model_config_file,
        config_poll=arguments.model_config_file_poll_wait_seconds,
        early_labels=arguments.allow_version_labels_for_unavailable_models,
        check_methods=arguments.enable_signature_method_name_check,
        warmup=arguments.enable_model_warmup,
        warmup_times=arguments.num_request_iterations_for_warmup,
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            in_time = runner.run(serve(options))
    except StartError as error:
        return _fail(str(error))
    if not in_time:
        # A thread is still in TensorFlow and can't be interrupted; a normal exit would wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _fail(message: str) -> int:
    _tell(sys.stderr, f"{PROGRAM}: {message}")
    return 1


def _tell(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()


def _problem(arguments: argparse.Namespace) -> str | None:
    models: Sequence[tuple[str, Path]] = arguments.model
    if bool(models) is (arguments.model_config_file is not None):
        return "give either --model NAME=DIR, as often as needed, or --model-config-file FILE"
    if arguments.versions is not None and not models:
        return "--versions goes with --model; with a file, say model_version_policy in it"
    names = [name for name, _ in models]
    for name, base in models:
        if names.count(name) > 1:
            return f"--model {name}: named twice; each model needs a name of its own"
        if not base.is_dir():
            return (
                f"--model {name}: {base} is no directory; make it, with versions in it ({base}/1)"
            )
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="TensorFlow Serving's REST and gRPC contract over TensorFlow, for development.",
        epilog="Options that TensorFlow Serving has too may be spelled its way, with underscores.",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        type=_model,
        metavar="NAME=DIR",
        help="a model and the folder that holds its numbered versions (repeatable)",
    )
    for name, read, default, form, text in _OPTIONS:
        parser.add_argument(name, type=read, default=default, metavar=form, help=text)
    for name, read, default, form, text in _SHARED_OPTIONS:
        spellings = (f"--{name}", f"--{name.replace('-', '_')}")
        bare: dict[str, Any] = {"nargs": "?", "const": True} if read is _switch else {}
        parser.add_argument(*spellings, type=read, default=default, metavar=form, help=text, **bare)
    return parser


def _model(text: str) -> tuple[str, Path]:
    name, sign, folder = text.partition("=")
    if not sign or not folder or not _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=DIR (a name has letters, digits, '.', '_' and '-')"
        )
    return name, Path(folder)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8500")
    return host, int(port)


def _policy(text: str) -> Policy:
    try:
        return parse_policy(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def _depth(text: str) -> int:
    value = _positive(text)
    if value > _MAX_DEPTH:
        raise argparse.ArgumentTypeError(f"{text} is more than {_MAX_DEPTH}, which no parser takes")
    return value


def _switch(text: str) -> bool:
    value = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return value


def _wait(text: str) -> float:
    return 0.0 if text == "0" else _seconds(text)


def _times(text: str) -> int:
    return 1 if text == "0" else _positive(text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


_OPTIONS: tuple[tuple[str, Callable[[str], object], object, str, str], ...] = (
    ("--grpc", _address, ("127.0.0.1", 8500), "HOST:PORT", "default 127.0.0.1:8500; port 0: any"),
    ("--rest", _address, ("127.0.0.1", 8501), "HOST:PORT", "default 127.0.0.1:8501; port 0: any"),
    ("--versions", _policy, None, "POLICY", "latest:N (default 1), all, specific:1,2"),
    ("--poll", _seconds, 1.0, "SECONDS", "between looks at the folders (default 1)"),
    ("--threads", _positive, 1, "N", "for one prediction (default 1, quickest for small batches)"),
    ("--max-body", _positive, 64 * 1024 * 1024, "BYTES",
     "longest REST body; also the most that one repeated gRPC value may fill (default 64 MiB)"),
    ("--json-depth", _depth, 64, "N", f"deepest nesting of a body (default 64, most {_MAX_DEPTH})"),
)  # fmt: skip
# Those of TensorFlow Serving, with its names.
_SHARED_OPTIONS: tuple[tuple[str, Callable[[str], object], object, str, str], ...] = (
    ("model-config-file", Path, None, "FILE", "models as a ModelServerConfig in text form"),
    ("model-config-file-poll-wait-seconds", _wait, 0.0, "SECONDS",
     "between looks at that file (default 0: once)"),
    ("allow-version-labels-for-unavailable-models", _switch, False, "BOOL",
     "a new label may be given before its version serves (default false)"),
    ("enable-signature-method-name-check", _switch, False, "BOOL",
     "a signature serves only the calls that its method_name is for (default false)"),
    ("enable-model-warmup", _switch, True, "BOOL",
     "replay assets.extra/tf_serving_warmup_requests at load (default true)"),
    ("num-request-iterations-for-warmup", _times, 1, "N", "how often each is replayed (default 1)"),
)  # fmt: skip
