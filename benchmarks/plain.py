"""Run the scripts that people write without this package.

    python benchmarks/plain.py features FOLDER --out FEATURES.npy --base squeezenet --size 96
    python benchmarks/plain.py accuracy FOLDER --base squeezenet --size 96 [--cut fire8_concat]
    python benchmarks/plain.py epochs   FOLDER --base squeezenet --size 96 --epochs 2
    python benchmarks/plain.py finetune FOLDER --base vgg16 --size 224 --below block4_pool --batch 16 --epochs 2

Keras, scikit-learn and NumPy only, with one exception: SqueezeNet's layers and weight file, which keras.applications
lacks, come from ``bottleneck.bases.squeezenet``. Other bases take ``--weights FILE.weights.h5``, or random numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def network(base: str, size: int, weights: str | None) -> tuple[Any, Any]:
    """The network without its classifier, and its preprocessing function."""
    if base == "squeezenet":
        return squeezenet(size), keras.applications.imagenet_utils.preprocess_input  # caffe style
    keras.utils.set_random_seed(0)
    builder, module = {
        "mobilenetv2": (keras.applications.MobileNetV2, keras.applications.mobilenet_v2),
        "vgg16": (keras.applications.VGG16, keras.applications.vgg16),
        "inceptionv3": (keras.applications.InceptionV3, keras.applications.inception_v3),
    }[base]
    model = builder(include_top=False, weights=weights, input_shape=(size, size, 3))
    return model, module.preprocess_input


def random_numbers(base: str, size: int) -> Any:
    """Build the network with a random number for every weight.

    A graph optimizer removes the addition of zeros, and what is then left is not fused as it is for anybody's weights.
    """
    model, _ = network(base, size, None)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if not weight.path.endswith("kernel"):
            middle = 1.0 if weight.path.endswith(("gamma", "variance")) else 0.0
            weight.assign(middle + rng.uniform(0.05, 0.2, weight.shape))
    return model


def frozen_base(base: str, size: int, cut: str | None, weights: str | None) -> tuple[Any, Any]:
    """Build the frozen network up to `cut`, and its preprocessing."""
    model, preprocess = network(base, size, weights)
    last = model.get_layer(cut) if cut else model.layers[-1]
    frozen = keras.Model(model.input, keras.layers.GlobalAveragePooling2D()(last.output))
    frozen.trainable = False
    return frozen, preprocess


def squeezenet(size: int) -> Any:
    """The network and the weights: the one thing taken from this package."""
    from bottleneck.bases.squeezenet import pretrained, specs
    from bottleneck.schema import Cache

    cache = Cache(Path(os.environ["BOTTLENECK_CACHE"]))
    return pretrained(specs()["squeezenet"], top=False, size=size, cache=cache)


def images(folder: str, size: int, batch: int, *, shuffle: bool = False) -> tf.data.Dataset:
    return keras.utils.image_dataset_from_directory(
        folder, image_size=(size, size), batch_size=batch, shuffle=shuffle, seed=0, verbose=False
    )


def extract(folder: str, model: Any, preprocess: Any, size: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of the class folders in `folder`."""
    dataset = images(folder, size, batch)
    labels = np.array([dataset.class_names.index(Path(path).parent.name) for path in dataset.file_paths])
    ready = dataset.map(lambda x, y: preprocess(x)).prefetch(tf.data.AUTOTUNE)
    return model.predict(ready, verbose=0), labels


def features(given: argparse.Namespace) -> dict[str, Any]:
    """Images to a file of features."""
    model, preprocess = frozen_base(given.base, given.size, given.cut, given.weights)
    rows, labels = extract(given.folder, model, preprocess, given.size, given.batch)
    np.save(given.out, rows)
    np.save(Path(given.out).with_suffix(".labels.npy"), labels)
    return {"images": len(rows), "shape": list(rows.shape[1:])}


def accuracy(given: argparse.Namespace) -> dict[str, Any]:
    """Train on ``train/``, measure on ``test/``: standardised logistic regression on global averages."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    started = time.perf_counter()
    model, preprocess = frozen_base(given.base, given.size, given.cut, given.weights)
    folder = Path(given.folder)
    x_train, y_train = extract(str(folder / "train"), model, preprocess, given.size, given.batch)
    x_test, y_test = extract(str(folder / "test"), model, preprocess, given.size, given.batch)
    extracted = time.perf_counter() - started
    started = time.perf_counter()
    scaler = StandardScaler()
    head = LogisticRegression(max_iter=1000)
    head.fit(scaler.fit_transform(x_train), y_train)
    right = float((head.predict(scaler.transform(x_test)) == y_test).mean())
    return {
        "images": len(y_train) + len(y_test),
        "accuracy": right,
        "extract_seconds": extracted,
        "fit_seconds": time.perf_counter() - started,
        "iterations": int(head.n_iter_[0]),
    }


def epochs(given: argparse.Namespace) -> dict[str, Any]:
    """Fit a head on the frozen network, without a cache."""
    model, preprocess = frozen_base(given.base, given.size, given.cut, given.weights)
    dataset = images(given.folder, given.size, given.batch, shuffle=True)
    classes = len(dataset.class_names)
    ready = dataset.map(lambda x, y: (preprocess(x), y)).prefetch(tf.data.AUTOTUNE)
    x = keras.layers.Dense(given.hidden, activation="relu")(model.output) if given.hidden else model.output
    whole = keras.Model(model.input, keras.layers.Dense(classes, activation="softmax")(x))
    whole.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    clock = Clock()
    whole.fit(ready, epochs=given.epochs, verbose=0, callbacks=[clock])
    return {"images": len(dataset.file_paths), "epoch_seconds": clock.seconds}


def finetune(given: argparse.Namespace) -> dict[str, Any]:
    """Fit with everything up to a layer frozen, BatchNorms too."""
    model, preprocess = frozen_base(given.base, given.size, given.cut, given.weights)
    dataset = images(given.folder, given.size, given.batch, shuffle=True)
    ready = dataset.map(lambda x, y: (preprocess(x), y)).prefetch(tf.data.AUTOTUNE)
    model.trainable = True
    below = True
    for layer in model.layers:
        if below or isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
        below = below and layer.name != given.below
    assert not below, f"no layer {given.below}"
    probabilities = keras.layers.Dense(len(dataset.class_names), activation="softmax")(model.output)
    whole = keras.Model(model.input, probabilities)
    whole.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "sparse_categorical_crossentropy")
    clock = Clock()
    whole.fit(ready, epochs=given.epochs, verbose=0, callbacks=[clock])
    return {"images": len(dataset.file_paths), "epoch_seconds": clock.seconds}


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch; the first one holds the tracing."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._started)


WAYS = {"features": features, "accuracy": accuracy, "epochs": epochs, "finetune": finetune}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(WAYS))
    parser.add_argument("folder")
    parser.add_argument("--base", default="squeezenet")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--cut", help="Layer whose average is taken.")
    parser.add_argument("--below", help="finetune: the last frozen layer.")
    parser.add_argument("--weights")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", default="features.npy")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(WAYS[given.what](given)))


if __name__ == "__main__":
    main()
