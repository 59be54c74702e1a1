"""Load weights from files, through the copies of `weight_copy`.

Nothing is skipped and nothing is guessed: every weight of the network is filled from the file with its exact shape,
or the error names the first layer where they part. What a file may hold beyond the network is its classifier, and
only where the caller says that the network was built without it.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bottleneck.bases.weight_copy import MEMBER, plain_copy
from bottleneck.errors import BaseError, UsageError, WeightsError

if TYPE_CHECKING:
    import numpy as np


class WeightSource(NamedTuple):
    """The parsed option ``--weights``."""

    kind: Literal["own", "imagenet", "random", "file"]
    seed: int = 0
    path: Path | None = None


def parse_weights(text: str | None) -> WeightSource:
    """Parse ``imagenet``, ``random:SEED`` or a path; None is the default.

    Raises
    ------
    UsageError
        A seed that is no number, or a file that does not exist or is of no known kind.

    Examples
    --------
    >>> parse_weights("random:7").seed, parse_weights(None).kind
    (7, 'own')
    """
    if text is None:
        return WeightSource("own")
    if text == "imagenet":
        return WeightSource("imagenet")
    kind, _, rest = text.partition(":")
    if kind == "random":
        if not rest.isdecimal():
            raise UsageError(
                f"--weights {text!r}: expected random:SEED with a whole number, such as random:0"
            )
        return WeightSource("random", seed=int(rest))
    path = Path(text)
    if path.suffix.lower() not in (".h5", ".hdf5", ".keras"):
        raise UsageError(
            f"--weights {text!r}: expected imagenet, random:SEED, or a .weights.h5, .h5 or .keras file"
        )
    if not path.is_file():
        raise UsageError(f"--weights {text!r}: there is no such file")
    return WeightSource("file", path=path)


def load_file(model: Any, path: Path, *, top_may_lack: bool) -> None:
    """Fill every weight of `model` from `path`.

    Parameters
    ----------
    model : keras.Model
    path : Path
        ``.weights.h5`` or ``.keras`` of Keras 3, or ``.h5`` of Keras 2 and before, with or without the classifier.
    top_may_lack : bool
        `model` was built without its classifier, so the file may hold more layers, after the model's own.

    Raises
    ------
    WeightsError
        The file cannot be read (see `plain_copy`), or does not fit: names the first layer and both shapes.
    BaseError
        A weight is NaN or infinite.
    """
    import h5py

    with plain_copy(path) as plain:
        data: Any = str(plain)
        try:
            if plain.suffix == ".keras":
                with zipfile.ZipFile(plain) as archive:
                    data = io.BytesIO(archive.read(MEMBER))
            with h5py.File(data, "r") as file:
                _load(model, file, path, plain, top_may_lack)
        except (OSError, KeyError) as error:
            raise WeightsError(f"{path}: cannot be read: {error}") from error
    check_finite(model, str(path))


def check_finite(model: Any, where: str) -> None:
    """Raise `BaseError` for the first weight with NaN or infinity."""
    import numpy as np

    for weight in model.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise BaseError(f"{where}: weight {weight.path} holds {bad} values that are NaN or infinite")


def _load(model: Any, file: Any, path: Path, plain: Path, top_may_lack: bool) -> None:
    if "layer_names" in file.attrs or "layer_names0" in file.attrs:
        _load_legacy(model, file, path, top_may_lack)
    elif "model_weights" in file:
        _load_legacy(model, file["model_weights"], path, top_may_lack)
    else:
        _load_keras3(model, file, path, plain, top_may_lack)


def _load_legacy(model: Any, group: Any, path: Path, top_may_lack: bool) -> None:
    # Layer by layer: by name where the file has all names of the model, else in order.
    stored = [
        (name, values) for name in _texts(group, "layer_names") if (values := _stored(group, name, path))
    ]
    # Keras 2 wrote trainable weights first, whatever order a layer made them in.
    wanted = [
        (layer, layer.trainable_weights + layer.non_trainable_weights)
        for layer in model.layers
        if layer.weights
    ]
    by_name = dict(stored)
    if len(by_name) == len(stored) and all(layer.name in by_name for layer, _ in wanted):
        pairs = [(layer, weights, layer.name, by_name[layer.name]) for layer, weights in wanted]
    else:
        pairs = [(layer, w, n, v) for (layer, w), (n, v) in zip(wanted, stored, strict=False)]
    for layer, weights, name, values in pairs:
        needs, has = [tuple(w.shape) for w in weights], [v.shape for v in values]
        if needs != has:
            raise WeightsError(
                f"{path}: does not fit {model.name!r}, first at layer {layer.name!r}: the network has {_shown(needs)}, "
                f"the file's {name!r} has {_shown(has)}"
            )
    if len(stored) < len(wanted):
        missing = ", ".join(layer.name for layer, _ in wanted[len(stored) :][:5])
        raise WeightsError(
            f"{path}: holds {len(stored)} layers with weights, {model.name!r} has {len(wanted)}: "
            f"nothing for {missing}; "
            "a file without the top cannot feed a cut inside it"
        )
    if len(stored) > len(wanted) and not top_may_lack:
        raise WeightsError(
            f"{path}: holds {len(stored)} layers with weights, {model.name!r} has {len(wanted)}"
        )
    for layer, weights, _, values in pairs:
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()  # Normalization derives what it computes with from its weights


def _shown(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(str(s) for s in shapes) or "no weights"


def _stored(group: Any, name: str, path: Path) -> list[np.ndarray]:
    layer = _at(group, name, path)
    return [_values(layer, weight, path) for weight in _texts(layer, "weight_names")]


def _texts(group: Any, name: str) -> list[str]:
    # Keras splits a long list into `name0`, `name1`, …
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        parts = []
        while f"{name}{len(parts)}" in group.attrs:
            parts.append(group.attrs[f"{name}{len(parts)}"])
    return [item.decode() if isinstance(item, bytes) else str(item) for part in parts for item in part]


def _at(group: Any, name: str, path: Path) -> Any:
    if not name or name not in group:
        raise WeightsError(f"{path}: {name!r} is listed and missing; the file is damaged")
    return group[name]


def _values(layer: Any, name: str, path: Path) -> np.ndarray:
    import h5py
    import numpy as np

    dataset = _at(layer, name, path)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu":
        raise WeightsError(f"{path}: {name!r} is no plain dataset of numbers")
    return np.asarray(dataset)


def _load_keras3(model: Any, file: Any, path: Path, plain: Path, top_may_lack: bool) -> None:
    # Keras' own loader places weights by the kind of layer and its turn.
    import warnings

    import numpy as np

    if not path.name.lower().endswith((".weights.h5", ".keras")):
        raise WeightsError(f"{path}: holds weights of Keras 3, whose files are called .weights.h5; rename it")
    stored = _count_weights(file)
    for weight in model.weights:
        # Keras may pass over a layer with a mere warning; what it leaves out is seen by this.
        if "float" in weight.dtype:
            weight.assign(np.full(weight.shape, np.nan))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_weights(str(plain))
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path}: does not fit {model.name!r}: {_short(error)}") from error
    for weight in model.weights:
        if "float" in weight.dtype and np.isnan(np.asarray(weight)).all():
            raise WeightsError(f"{path}: holds nothing (or NaN alone) for {weight.path} of {model.name!r}")
    wanted = len({id(weight) for weight in model.weights})
    if stored > wanted and not top_may_lack:
        raise WeightsError(
            f"{path}: holds {stored} weights, {model.name!r} has {wanted}; it is the file of another network"
        )


def _short(error: Exception) -> str:
    # Without the list of every layer that failed: the first says it.
    text = " ".join(str(error).split())
    return text.split("List of objects that could not be loaded")[0].strip()[:600]


def _count_weights(file: Any) -> int:
    import h5py

    count, stack = 0, [file]
    while stack:
        group = stack.pop()
        for name, item in group.items():
            if not isinstance(item, h5py.Group):
                count += 1
            elif not name.startswith("seed_generator"):
                stack.append(item)
    return count
