"""The models that the tests serve, made on the spot with TensorFlow."""

import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():  # other people's deprecations, at import only
    warnings.simplefilter("ignore")
    import tensorflow as tf


class Scale(tf.Module):  # type: ignore[misc,unused-ignore]
    """y = factor * x; `slow` multiplies matrices for `rounds` rounds and returns the factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def scale(self, x: Any) -> dict[str, Any]:
        return {"y": x * self.factor}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="rounds")])
    def slow(self, rounds: Any) -> dict[str, Any]:
        matrix = tf.eye(256)
        for _ in tf.range(tf.reduce_max(rounds)):
            matrix = tf.matmul(matrix, matrix)
        return {"y": tf.fill(tf.shape(rounds), self.factor * matrix[0, 0])}


def _spec(dtype: Any, name: str, *shape: int | None) -> Any:
    return tf.TensorSpec(list(shape), dtype, name=name)


_INTEGERS = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")


class Zoo(tf.Module):  # type: ignore[misc,unused-ignore]
    """Signatures of many kinds in one model."""

    def __init__(self) -> None:
        super().__init__()
        words = tf.lookup.KeyValueTensorInitializer(
            tf.constant(["one", "two"]), tf.constant([1, 2], tf.int64)
        )
        self.table = tf.lookup.StaticHashTable(words, -1)

    @tf.function(
        input_signature=[
            _spec(tf.float32, "a", None, 2),
            _spec(tf.int64, "b", None),
            _spec(tf.string, "c", None),
            _spec(tf.bool, "flag", None),
        ]
    )
    def many(self, a: Any, b: Any, c: Any, flag: Any) -> dict[str, Any]:
        return {
            "total": tf.reduce_sum(a, axis=1),
            "next": b + 1,
            "text": tf.strings.join([c, "!"]),
            "raw_bytes": c,
            "negated": tf.logical_not(flag),
        }

    @tf.function(input_signature=[_spec(getattr(tf, name), name, None) for name in _INTEGERS])
    def integers(self, *values: Any) -> dict[str, Any]:
        return {f"{name}_out": tf.identity(v) for name, v in zip(_INTEGERS, values, strict=True)}

    @tf.function(input_signature=[_spec(tf.float64, "x", None)])
    def double(self, x: Any) -> dict[str, Any]:
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[_spec(tf.float32, "x", None)])
    def single(self, x: Any) -> dict[str, Any]:
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[_spec(tf.float32, "x", None)])
    def scalar(self, x: Any) -> dict[str, Any]:
        return {"y": tf.reduce_sum(x)}

    @tf.function(input_signature=[_spec(tf.float32, "x", None)])
    def uneven(self, x: Any) -> dict[str, Any]:
        return {"whole": tf.identity(x), "half": x[::2]}

    @tf.function(input_signature=[_spec(tf.float16, "x", None)])
    def half_in(self, x: Any) -> dict[str, Any]:
        return {"y": tf.cast(x, tf.float32)}

    @tf.function(input_signature=[_spec(tf.float32, "x", None)])
    def half_out(self, x: Any) -> dict[str, Any]:
        return {"y": tf.cast(x, tf.float16)}

    @tf.function(input_signature=[_spec(tf.string, "word", None)])
    def lookup(self, word: Any) -> dict[str, Any]:
        return {"number": self.table.lookup(word)}

    @tf.function(input_signature=[_spec(tf.string, "x", None)])
    def text(self, x: Any) -> dict[str, Any]:
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[_spec(tf.int32, "x")])
    def rankless(self, x: Any) -> dict[str, Any]:
        return {"y": x * 2}

    @tf.function(input_signature=[_spec(tf.float32, "x", None)])
    def refuses(self, x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="only above zero")]):
            return {"y": tf.identity(x)}

    def signatures(self) -> dict[str, Any]:
        names = (
            "integers", "double", "single", "scalar", "uneven", "half_in", "half_out", "lookup",
            "text", "rankless", "refuses",
        )  # fmt: skip
        return {"serving_default": self.many} | {name: getattr(self, name) for name in names}


def make_versions(root: Path) -> dict[str, Path]:
    """Saves one version folder each of scale1, scale2, scale3, zoo and keras."""
    for factor in (2.0, 3.0, 4.0):
        module = Scale(factor)
        saved = {"serving_default": module.scale, "slow": module.slow}
        tf.saved_model.save(module, str(root / f"scale{int(factor) - 1}"), signatures=saved)
    zoo = Zoo()
    tf.saved_model.save(zoo, str(root / "zoo"), signatures=zoo.signatures())
    tf.keras.utils.set_random_seed(7)
    model = tf.keras.Sequential(
        [
            tf.keras.Input((4,), name="pixels"),
            tf.keras.layers.Dense(8, "relu"),
            tf.keras.layers.Dense(2),
        ]
    )
    model.export(str(root / "keras"), format="tf_saved_model", verbose=False)
    return {name: root / name for name in ("scale1", "scale2", "scale3", "zoo", "keras")}
