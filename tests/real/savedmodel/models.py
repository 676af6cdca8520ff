"""The models that the tests serve, made on the spot with TensorFlow."""

import os
import warnings
from pathlib import Path
from typing import Any, ClassVar, cast

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():  # other people's deprecations, at import only
    warnings.simplefilter("ignore")
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel


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


class Judge(tf.Module):  # type: ignore[misc,unused-ignore]
    """Signatures over serialized tf.Examples with a `name`, a `weight` and a `count`."""

    _FEATURES: ClassVar[dict[str, Any]] = {
        "name": tf.io.FixedLenFeature([1], tf.string, default_value=["?"]),
        "weight": tf.io.FixedLenFeature([1], tf.float32),
        "count": tf.io.FixedLenFeature([1], tf.int64, default_value=[0]),
    }

    def _over(self, answer: Any, alias: str = "inputs", dtype: Any = tf.string) -> Any:
        def run(inputs: Any) -> dict[str, Any]:
            parsed = tf.io.parse_example(tf.as_string(inputs), self._FEATURES)
            return cast(dict[str, Any], answer(parsed["name"], parsed["weight"], parsed["count"]))

        return tf.function(run, input_signature=[_spec(dtype, alias, None)])

    def signatures(self) -> dict[str, Any]:
        def classes(name: Any, weight: Any, _count: Any) -> Any:
            labels = tf.concat([name, tf.fill(tf.shape(name), "rest")], axis=1)
            return {"classes": labels, "scores": tf.concat([weight, 1 - weight], axis=1)}

        def regress(_name: Any, weight: Any, count: Any) -> Any:
            return {"outputs": weight + tf.cast(count, tf.float32)}

        def over(**outputs: Any) -> Any:
            return self._over(
                lambda *parsed: {alias: make(*parsed) for alias, make in outputs.items()}
            )

        return {
            "serving_default": self._over(classes),
            "regress": self._over(regress),
            "flat": over(outputs=lambda _n, weight, _c: weight[:, 0]),
            "labels": over(classes=lambda name, _w, _c: name),
            "scores": over(scores=lambda _n, weight, _c: weight),
            "wide": over(outputs=lambda _n, weight, _c: tf.concat([weight, weight], axis=1)),
            "whole": over(outputs=lambda _n, _w, count: count),
            "short": over(outputs=lambda _n, weight, _c: weight[:1]),
            "cube": over(scores=lambda _n, weight, _c: weight[:, :, None]),
            "fine": over(scores=lambda _n, weight, _c: tf.cast(weight, tf.float64)),
            "numbers": over(classes=lambda _n, weight, _c: weight),
            "few": over(classes=lambda name, _w, _c: name[:1]),
            "uneven": over(
                classes=lambda name, _w, _c: name,
                scores=lambda _n, weight, _c: tf.concat([weight, weight], axis=1),
            ),
            "three": over(
                classes=lambda name, _w, _c: name,
                scores=lambda _n, weight, _c: weight,
                more=lambda _n, weight, _c: weight,
            ),
            "other": over(y=lambda _n, weight, _c: weight),
            "misnamed": self._over(regress, "examples"),
            "typed": self._over(regress, dtype=tf.int64),
        }


def name_methods(version: Path, **methods: str) -> None:
    """Gives signatures of a saved model the method names of TensorFlow 1's exporters."""
    saved = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    definitions = saved.meta_graphs[0].signature_def
    for name, method in methods.items():
        definitions[name].method_name = f"tensorflow/serving/{method}"
    (version / "saved_model.pb").write_bytes(saved.SerializeToString())


def make_versions(root: Path) -> dict[str, Path]:
    """Saves one version folder each of scale1, scale2, scale3, zoo, judge and keras."""
    for factor in (2.0, 3.0, 4.0):
        module = Scale(factor)
        saved = {"serving_default": module.scale, "slow": module.slow}
        tf.saved_model.save(module, str(root / f"scale{int(factor) - 1}"), signatures=saved)
    zoo = Zoo()
    tf.saved_model.save(zoo, str(root / "zoo"), signatures=zoo.signatures())
    judge = Judge()
    tf.saved_model.save(judge, str(root / "judge"), signatures=judge.signatures())
    name_methods(root / "judge", serving_default="classify", regress="regress")
    tf.keras.utils.set_random_seed(7)
    model = tf.keras.Sequential(
        [
            tf.keras.Input((4,), name="pixels"),
            tf.keras.layers.Dense(8, "relu"),
            tf.keras.layers.Dense(2),
        ]
    )
    model.export(str(root / "keras"), format="tf_saved_model", verbose=False)
    return {name: root / name for name in ("scale1", "scale2", "scale3", "zoo", "judge", "keras")}
