"""Score how little a head knows an image, by energy.

``-log(sum(exp(logits)))``, after Liu, Wang, Owens and Li, "Energy-based Out-of-distribution Detection" (NeurIPS 2020):
low for images like those that were learnt from, high for others. Probabilities cannot say so, since they add up to
one whatever the image. Where to draw the line is the caller's choice; the quantiles of images that the head did not
learn from are the scale for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bottleneck import runs
from bottleneck.contracts import Head
from bottleneck.models.outputs import ENERGY
from bottleneck.schema import ScoreFacts
from bottleneck.store.read import Store

#: Per cent of images that have at most this energy.
_QUANTILES = (5, 50, 95, 99)

#: Rows that the head is asked about at a time, and rows that are enough for a quantile.
_GATHER, _MOST = 4096, 16384


def energy(logits: np.ndarray) -> np.ndarray:
    """Compute the energy (n,) float32 of logits (n, k).

    Examples
    --------
    >>> energy(np.array([[1.0], [1000.0]], np.float32)).tolist()
    [-1.0, -1000.0]
    """
    values = np.asarray(logits, np.float64)
    largest = values.max(axis=1, keepdims=True)
    sums = np.exp(values - largest).sum(axis=1)
    return (-(largest[:, 0] + np.log(sums))).astype(np.float32)


def energy_output(logits: Any) -> Any:
    """Compute the energy of a symbolic Keras tensor.

    It uses only operations that every format has.
    """
    from keras import layers, ops

    # Not `ops.logsumexp`: it asks whether numbers are finite, for which LiteRT has no kernel.
    largest = ops.max(logits, axis=-1, keepdims=True)
    sums = ops.sum(ops.exp(logits - largest), axis=-1)
    value = ops.negative(ops.squeeze(largest, axis=-1) + ops.log(sums))
    return layers.Identity(name=ENERGY, dtype="float32")(value)


def energy_facts(folder: runs.RunFolder, head: Head, store: Store) -> ScoreFacts:
    """Measure the energy of images that the head did not learn from.

    Where there are none, of all images with a row.
    """
    inventory = folder.inventory()
    places = store.find(inventory.keys)
    splits = np.array(inventory.table.column("split").to_pylist(), object)
    unseen = places[(places >= 0) & (splits != "train")]
    rows = store.rows((unseen if len(unseen) else places[places >= 0])[:_MOST])
    energies = [
        energy(head.logits(rows.select(slice(start, start + _GATHER))))
        for start in range(0, len(rows), _GATHER)
    ]
    values = np.percentile(np.concatenate(energies), _QUANTILES) if energies else np.zeros(0)
    return ScoreFacts(
        name=ENERGY,
        images=len(rows),
        unseen=bool(len(unseen)),
        quantiles={str(q): float(value) for q, value in zip(_QUANTILES, values, strict=False)},
    )
