"""Replays a version's warm-up requests after it was loaded and before it serves.

Source: TensorFlow Serving's saved_model_warmup: the file `assets.extra/tf_serving_warmup_requests`
holds PredictionLog messages in TFRecord form, 1,000 at most. A request that fails, a record that is
no PredictionLog, a damaged file or one record too many fails the load. The model name and version
in a request are not looked at; its signature is.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from adapters.savedmodel import proto_calls
from adapters.savedmodel.signature import Servable
from adapters.savedmodel.status import Code, ServingError, invalid_argument

FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def replay(servable: Servable, folder: Path, times: int, max_fill: int) -> int:
    """Runs each recorded request.

    Args:
        servable: the loaded version.
        folder: its folder.
        times: how often each request runs.
        max_fill: see `proto_tensors.read`.

    Returns:
        How many records there were; 0 where there is no file.

    Raises:
        ServingError: what a request failed with; INVALID_ARGUMENT or DATA_LOSS for a bad file;
            UNIMPLEMENTED for a kind of request that can't be replayed.
    """
    path = folder / FILE
    if not path.is_file():
        return 0
    count = 0
    for record in _records(path):
        log = _parse(record, path)
        for _ in range(times):
            _run(servable, log, max_fill)
        count += 1
        if count > MAX_RECORDS:
            raise invalid_argument(
                f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}"
            )
    return count


def _records(path: Path) -> Iterator[bytes]:
    try:
        yield from tf.compat.v1.io.tf_record_iterator(str(path))
    except tf.errors.DataLossError as error:
        raise ServingError(
            Code.DATA_LOSS,
            f"{error.message}. Please verify your warmup data is in TFRecord format. ({path})",
        ) from None
    except tf.errors.OpError as error:
        raise ServingError(Code(error.error_code), f"{path}: {error.message}") from None


def _parse(record: bytes, path: Path) -> Any:
    try:
        return prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError:
        raise invalid_argument(
            f"Failed to parse warmup record: {record[:64]!r} from {path}"
        ) from None


def _run(servable: Servable, log: Any, max_fill: int) -> None:
    kind = log.WhichOneof("log_type")
    if kind is None:
        return
    if kind == "predict_log":
        proto_calls.predict(servable, log.predict_log.request, None, max_fill)
    elif kind in _CALLS:
        _CALLS[kind](servable, getattr(log, kind).request, None)
    else:
        number = log.DESCRIPTOR.fields_by_name[kind].number
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")


_CALLS: Mapping[str, Callable[[Servable, Any, int | None], Any]] = {
    "classify_log": proto_calls.classify,
    "regress_log": proto_calls.regress,
    "multi_inference_log": proto_calls.multi_inference,
}
