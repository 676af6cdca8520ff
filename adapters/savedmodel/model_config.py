"""TensorFlow Serving's ModelServerConfig, from a text file or a message, as `ModelSource`s.

Belongs here: reading and checking, with TensorFlow Serving's own rules, codes and texts. Needs the
official stubs but not TensorFlow, which they import only for tensors. Rules: names are unique, base
paths are absolute, the platform is `tensorflow`; a policy that is not set is the latest version.
What this server has no use for (`logging_config`) is let through.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from adapters.savedmodel.status import Code, ServingError, invalid_argument
from adapters.savedmodel.versions import Policy
from adapters.savedmodel.watch import ModelSource

PLATFORM = "tensorflow"
_MAX_FILE = 16 * 1024 * 1024  # bytes
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.]*)://")
_LIST = "model_config_list"


def read_file(path: Path, serving: frozenset[str] = frozenset()) -> tuple[ModelSource, ...]:
    """The models of a `model_config_file`; none for an empty file. See `from_message`.

    Raises:
        ServingError: NOT_FOUND where the file can't be read; INVALID_ARGUMENT where it is no
            ModelServerConfig or breaks a rule; FAILED_PRECONDITION where it is empty and models
            are served.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise ServingError(Code.NOT_FOUND, f"{path}: {error.strerror}") from None
    if len(content) > _MAX_FILE:
        raise invalid_argument(f"Invalid protobuf file: '{path}': larger than {_MAX_FILE} bytes")
    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(content.decode("utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from None
    if config.WhichOneof("config") is None and serving:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Cannot transition to requested config. It is only legal to transition from one "
            f"ModelConfigList to another. {path} is empty; to unload all models let it say "
            f"{_LIST} {{}}",
        )
    if config.WhichOneof("config") is None:
        return ()
    return from_message(config, serving)


def from_message(config: Any, serving: frozenset[str]) -> tuple[ModelSource, ...]:
    """The models of a ModelServerConfig message.

    Args:
        config: the message.
        serving: the names of the models in the configuration until now.

    Raises:
        ServingError: INVALID_ARGUMENT where it breaks a rule.
    """
    if config.WhichOneof("config") != _LIST:
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported"
        )
    models = config.model_config_list.config
    names: set[str] = set()
    for model in models:
        if model.name in names:
            raise invalid_argument(
                f"Illegal to list model {model.name} multiple times in config list"
            )
        names.add(model.name)
    bases = [_base(model) for model in models]
    for model in models:
        _check_platform(model, serving)
    return tuple(
        ModelSource(model.name, base, _policy(model), dict(model.version_labels))
        for model, base in zip(models, bases, strict=True)
    )


def _base(model: Any) -> Path:
    path: str = model.base_path
    scheme = _SCHEME.match(path)
    if scheme and scheme[1].lower() != "file":
        raise invalid_argument(
            f"model {model.name}: base_path {path} lies on a remote file system, and this server "
            "reads local folders only; copy the model or mount it"
        )
    local = path[scheme.end() :] if scheme else path
    if not local.startswith("/"):
        raise invalid_argument(
            f"Expected model {model.name} to have an absolute path or URI; got base_path()={path}"
        )
    return Path(local)


def _check_platform(model: Any, serving: frozenset[str]) -> None:
    platform = _platform(model)
    if platform != PLATFORM and model.name in serving:
        raise invalid_argument(
            f"Illegal to change a model's platform. For model {model.name} platform was {PLATFORM} "
            f"and new platform requested is {platform}"
        )
    if platform != PLATFORM:
        raise invalid_argument(f"Model {model.name} requests unsupported platform {platform}")


def _platform(model: Any) -> str:
    """`model_platform`, or the older `model_type`; exactly one of them must be set."""
    kinds = model_server_config_pb2.ModelType
    if model.model_type != kinds.MODEL_TYPE_UNSPECIFIED:
        if model.model_platform:
            raise invalid_argument(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                f"ModelServerConfig::model_platform, model name is {model.name}"
            )
        if model.model_type != kinds.TENSORFLOW:
            raise invalid_argument(
                f"ModelServerConfig::model_type choice {model.model_type} not supported."
            )
        return PLATFORM
    if not model.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
    return str(model.model_platform)


def _policy(model: Any) -> Policy:
    policy = model.model_version_policy
    return _POLICIES[policy.WhichOneof("policy_choice")](policy)


_POLICIES: Mapping[str | None, Callable[[Any], Policy]] = {
    None: lambda _: Policy(latest=1),
    "latest": lambda policy: Policy(latest=max(1, policy.latest.num_versions)),
    "all": lambda _: Policy(),
    "specific": lambda policy: Policy(chosen=frozenset(policy.specific.versions)),
}
