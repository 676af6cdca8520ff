"""Make two versions of a small digit classifier: `python make_digits.py DIR`.

Runs in the TensorFlow environment. The data are real: scikit-learn's 1,797 handwritten digits of
8 x 8 pixels (from NIST, shipped inside the package). DIR/1 is a small network, DIR/2 a better one;
each is a SavedModel with one signature. DIR/samples.json holds images that were held out, and what
they show.

Rules of this room: nothing is fetched, every seed is fixed, a version that is no good fails.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import stamps

TOOLS = ("tensorflow-cpu", "keras", "scikit-learn")  # what decides how it comes out
PIXELS = 64  # 8 x 8, row by row, 0 (paper) to 1 (ink)
DIGITS = 10
GOOD_ENOUGH = 0.9  # share of held-out digits told right
HIDDEN = {1: (16,), 2: (256, 128)}  # units of each version's hidden layers
EPOCHS = {1: 20, 2: 30}


class Data(NamedTuple):
    """Images (float32 [rows, 64], 0 to 1) and what they show (int64 [rows])."""

    pixels: Any
    digits: Any


def load_data() -> tuple[Data, Data]:
    """The digits for training and, never trained on, those held out (one in five)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, digits = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype("float32")  # whole sixteenths: exact in float32 and in JSON
    seen, held_out, seen_digits, held_out_digits = train_test_split(
        pixels, digits.astype("int64"), test_size=0.2, random_state=0, stratify=digits
    )
    return Data(seen, seen_digits), Data(held_out, held_out_digits)


def train(version: int, data: Data) -> Any:
    """A trained Keras network of this version: pixels [rows, 64] to probabilities [rows, 10]."""
    import keras

    keras.utils.set_random_seed(version)
    layers = [keras.Input(shape=(PIXELS,), name="pixels")]
    layers += [keras.layers.Dense(units, activation="relu") for units in HIDDEN[version]]
    layers += [keras.layers.Dense(DIGITS, activation="softmax")]
    model = keras.Sequential(layers)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(data.pixels, data.digits, epochs=EPOCHS[version], batch_size=32, verbose=0)
    return model


def export(model: Any, folder: Path) -> Any:
    """Save `model` as a SavedModel; returns it as loaded again from `folder`.

    Signature `serving_default`: `pixels` float32 [rows, 64] in, `probabilities` float32 [rows, 10]
    and `digit` int64 [rows] out.
    """
    import keras
    import tensorflow as tf

    def classify(pixels: Any) -> dict[str, Any]:
        probabilities = model(pixels)
        return {"probabilities": probabilities, "digit": tf.argmax(probabilities, axis=1)}

    # Keras's own way out: a plain tf.Module tracks the optimizer's copies of the weights, which
    # TensorFlow 2 finds again when it loads, but a session (TF Serving's way) does not.
    archive = keras.export.ExportArchive()
    archive.track(model)
    pixels = tf.TensorSpec([None, PIXELS], tf.float32, name="pixels")
    archive.add_endpoint("serving_default", classify, input_signature=[pixels])
    archive.write_out(str(folder), verbose=False)
    return tf.saved_model.load(str(folder))


def answers(loaded: Any, data: Data) -> Any:
    """The digits (int64 [rows]) that a loaded SavedModel sees in the images of `data`."""
    return loaded.signatures["serving_default"](pixels=data.pixels)["digit"].numpy()


def make(folder: Path) -> None:
    """Fill `folder` with both versions and the samples.

    Raises:
        RuntimeError: a version is not good enough on the held-out digits.
    """
    say("loading TensorFlow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # sums in one order
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    seen, held_out = load_data()
    right = {}
    for version in HIDDEN:
        started = time.monotonic()
        loaded = export(train(version, seen), folder / str(version))
        right[version] = answers(loaded, held_out) == held_out.digits
        accuracy = right[version].mean()
        seconds = time.monotonic() - started
        say(f"version {version}: {accuracy:.1%} of {len(held_out.digits)} right, {seconds:.1f} s")
        if accuracy < GOOD_ENOUGH:
            raise RuntimeError(f"version {version} is right on only {accuracy:.1%} of the digits")
    if right[2].mean() <= right[1].mean():
        raise RuntimeError("version 2 is no better than version 1")
    (folder / "samples.json").write_text(json.dumps(samples(held_out, right)) + "\n")


def samples(held_out: Data, right: dict[int, Any]) -> dict[str, Any]:
    """One held-out image of each digit, the first that both versions tell right."""
    told = right[1] & right[2]
    rows = [int(((held_out.digits == digit) & told).argmax()) for digit in range(DIGITS)]
    return {
        "about": "Held-out images, 8 x 8, row by row, 0 to 1; both versions tell these right.",
        "accuracy": {str(version): round(float(row.mean()), 4) for version, row in right.items()},
        "samples": [
            {"digit": digit, "pixels": held_out.pixels[row].tolist()}
            for digit, row in enumerate(rows)
        ],
    }


def say(line: str) -> None:
    """Show one line of progress."""
    print(f"digits: {line}", flush=True)


def main(arguments: list[str]) -> None:
    """Make the models in the folder named on the command line, unless they are there already."""
    parser = argparse.ArgumentParser(description="Make two versions of a digit classifier.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    target: Path = parser.parse_args(arguments).folder.resolve()
    stamps.make_folder(target, Path(__file__), TOOLS, make, say)


if __name__ == "__main__":
    main(sys.argv[1:])
