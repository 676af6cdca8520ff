"""The models that the golden vectors speak of, and the server configuration that goes with them.

Belongs here: deterministic, tiny SavedModels, saved in a second or two. `half_plus_two` has the
signatures of TF Serving's own test model of that name; the others are as plain as their vectors
need. Inputs have an open rank wherever a vector sends scalars or matrices, since whether a server
checks shapes before it runs the graph is no part of the contract.

    PYTHONPATH=tests python -m golden.models FOLDER [--base FOLDER-AS-THE-SERVER-SEES-IT]
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():  # other people's deprecations, at import only
    warnings.simplefilter("ignore")
    import tensorflow as tf

Module: Any = tf.Module

CONFIG = "models.config"
VERSIONS: Mapping[str, tuple[int, ...]] = {
    "half_plus_two": (123, 124),
    "identity": (1,),
    "pair": (1,),
    "shapes": (1,),
    "sorter": (1,),
}
LABELS: Mapping[str, Mapping[str, int]] = {"half_plus_two": {"stable": 123, "canary": 124}}
DTYPES = (
    "float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32",
    "uint32", "int64", "uint64", "bool", "string", "complex64", "complex128",
)  # fmt: skip
_UNUSUAL_NAMES = {"float32": "float", "float64": "double", "float16": "half"}


def make(folder: Path, base: str | None = None) -> Path:
    """Writes every model, one folder each with its numbered versions, and `models.config`.

    Args:
        folder: where to; made if it is missing.
        base: the same folder as the server will see it, such as a container's mount; default:
            `folder` itself.

    Returns:
        The configuration's path, in the text format of TF Serving's `--model_config_file`.
    """
    for version, (two, three) in {123: (2.0, 3.0), 124: (3.0, 4.0)}.items():
        _save(HalfPlusTwo(two, three), folder / "half_plus_two" / str(version))
    for name, module in {
        "identity": Identity(), "pair": Pair(), "shapes": Shapes(), "sorter": Sorter(),
    }.items():  # fmt: skip
        _save(module, folder / name / "1")
    config = folder / CONFIG
    config.write_text(config_text(base or str(folder.resolve())))
    return config


def config_text(base: str) -> str:
    """The configuration: all versions of each model, and the labels."""
    models = []
    for name in VERSIONS:
        labels = "".join(
            f'    version_labels {{ key: "{label}" value: {version} }}\n'
            for label, version in LABELS.get(name, {}).items()
        )
        models.append(
            f'  config {{\n    name: "{name}"\n    base_path: "{base}/{name}"\n'
            '    model_platform: "tensorflow"\n    model_version_policy { all {} }\n'
            f"{labels}  }}\n"
        )
    return f"model_config_list {{\n{''.join(models)}}}\n"


def _save(module: Any, path: Path) -> None:
    tf.saved_model.save(module, str(path), signatures=module.signatures())


def _spec(dtype: Any, name: str, shape: tuple[int | None, ...] | None = None) -> Any:
    return tf.TensorSpec(shape, dtype, name=name)


def _over_examples(run: Callable[[Any], dict[str, Any]]) -> Any:
    """A signature over serialized tf.Examples, as Classify and Regress want it."""
    return tf.function(run, input_signature=[_spec(tf.string, "inputs", (None,))])


class HalfPlusTwo(Module):
    """y = x / 2 + two; the `y2` and `y3` signatures add `three`."""

    def __init__(self, two: float, three: float) -> None:
        super().__init__()
        self.half = tf.Variable(0.5)
        self.two = tf.Variable(two)
        self.three = tf.Variable(three)

    @tf.function(input_signature=[_spec(tf.float32, "x")])
    def predict(self, x: Any) -> dict[str, Any]:
        return {"y": self.half * x + self.two}

    def signatures(self) -> dict[str, Any]:
        features = {
            "x": tf.io.FixedLenFeature([1], tf.float32),
            "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
        }

        def over(feature: str, add: Any, output: str) -> Any:
            def run(inputs: Any) -> dict[str, Any]:
                parsed = tf.io.parse_example(inputs, features)
                return {output: self.half * parsed[feature] + add}

            return _over_examples(run)

        return {
            "serving_default": self.predict,
            "regress_x_to_y": over("x", self.two, "outputs"),
            "regress_x_to_y2": over("x", self.three, "outputs"),
            "regress_x2_to_y3": over("x2", self.three, "outputs"),
            "classify_x_to_y": over("x", self.two, "scores"),
            "classify_x2_to_y3": over("x2", self.three, "scores"),
        }


class Identity(Module):
    """One signature for each dtype, named after it (`float`, `int64`, ...): `y` is `x`.

    `bytes` is `string` again with an output whose name ends in `_bytes`, and `text_and_bytes` has
    both kinds of output. The default signature is `float`.
    """

    def signatures(self) -> dict[str, Any]:
        def same(dtype: Any, *outputs: str) -> Any:
            def run(x: Any) -> dict[str, Any]:
                return {output: tf.identity(x) for output in outputs}

            return tf.function(run, input_signature=[_spec(dtype, "x")])

        return {
            "serving_default": same(tf.float32, "y"),
            "bytes": same(tf.string, "y_bytes"),
            "text_and_bytes": same(tf.string, "text", "text_bytes"),
            **{_UNUSUAL_NAMES.get(name, name): same(getattr(tf, name), "y") for name in DTYPES},
        }


class Pair(Module):
    """Several inputs and outputs; `readings` has those of the example in TF Serving's REST page."""

    @tf.function(input_signature=[_spec(tf.float32, "a"), _spec(tf.int64, "b")])
    def both(self, a: Any, b: Any) -> dict[str, Any]:
        return {"total": a + tf.cast(b, tf.float32), "twice": b * 2}

    @tf.function(
        input_signature=[
            _spec(tf.string, "tag"),
            _spec(tf.int64, "signal"),
            _spec(tf.float32, "sensor"),
        ]
    )
    def readings(self, tag: Any, signal: Any, sensor: Any) -> dict[str, Any]:
        return {
            "tag": tf.identity(tag),
            "signal_sum": tf.reduce_sum(signal, axis=-1),
            "sensor": tf.identity(sensor),
        }

    def signatures(self) -> dict[str, Any]:
        return {"serving_default": self.both, "readings": self.readings}


class Shapes(Module):
    """Outputs of awkward shapes."""

    @tf.function(input_signature=[_spec(tf.float32, "x")])
    def total(self, x: Any) -> dict[str, Any]:
        return {"y": tf.reduce_sum(x)}

    @tf.function(input_signature=[_spec(tf.float32, "x", (None,))])
    def uneven(self, x: Any) -> dict[str, Any]:
        return {"whole": tf.identity(x), "half": x[::2]}

    @tf.function(input_signature=[_spec(tf.float32, "x", (None,))])
    def nothing(self, x: Any) -> dict[str, Any]:
        return {"y": x[:0]}

    @tf.function(input_signature=[_spec(tf.float32, "x")])
    def to_half(self, x: Any) -> dict[str, Any]:
        return {"y": tf.cast(x, tf.float16)}

    def signatures(self) -> dict[str, Any]:
        return {
            "serving_default": self.total,
            "uneven": self.uneven,
            "nothing": self.nothing,
            "to_half": self.to_half,
        }


class Sorter(Module):
    """Classify and Regress signatures over Examples with a `name`, a `weight` and a `count`.

    The classes are the name and "rest", the scores the weight and what it lacks to 1.
    """

    def signatures(self) -> dict[str, Any]:
        features = {
            "name": tf.io.FixedLenFeature([1], tf.string, default_value=["?"]),
            "weight": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.5]),
            "count": tf.io.FixedLenFeature([1], tf.int64, default_value=[0]),
        }

        def parse(inputs: Any) -> Any:
            return tf.io.parse_example(inputs, features)

        def classes(parsed: Any) -> Any:
            return tf.concat([parsed["name"], tf.fill(tf.shape(parsed["name"]), "rest")], axis=1)

        def scores(parsed: Any) -> Any:
            return tf.concat([parsed["weight"], 1.0 - parsed["weight"]], axis=1)

        def labels_and_scores(inputs: Any) -> dict[str, Any]:
            parsed = parse(inputs)
            return {"classes": classes(parsed), "scores": scores(parsed)}

        def labels(inputs: Any) -> dict[str, Any]:
            return {"classes": classes(parse(inputs))}

        def count_and_weight(inputs: Any) -> dict[str, Any]:
            parsed = parse(inputs)
            return {"outputs": tf.cast(parsed["count"], tf.float32) + parsed["weight"]}

        def two_columns(inputs: Any) -> dict[str, Any]:
            return {"outputs": scores(parse(inputs))}

        runs = (labels_and_scores, labels, count_and_weight, two_columns)
        named = {run.__name__: _over_examples(run) for run in runs}
        return {"serving_default": named["labels_and_scores"], **named}


def main() -> int:
    """The command line: writes the models and says where the configuration is."""
    parser = argparse.ArgumentParser(description="write the models of the golden vectors")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", help="the folder as the server sees it (default: FOLDER)")
    arguments = parser.parse_args()
    print(make(arguments.folder, arguments.base))
    return 0


if __name__ == "__main__":
    sys.exit(main())
