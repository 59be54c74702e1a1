"""Tables of Keras layers that act in training only.

In inference they return their input unchanged. The digest ignores them, and a frozen base has them switched off.
"""

from __future__ import annotations

#: Layers whose `rate` or `stddev` is randomness in training and nothing else.
# fmt: off
NOISE = frozenset((
    "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D",
))
#: What Keras calls rates of randomness. The first two are that of `NOISE` alone; the others mean nothing else in Keras.
RATES = ("rate", "stddev", "dropout", "recurrent_dropout", "drop_path_rate")

#: Augmentation that returns pixels unchanged in inference (`RandomCrop` does not: it crops the middle).
AUGMENTATION = frozenset((
    "AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter",
    "RandomContrast", "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale",
    "RandomHeight", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation",
    "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomWidth", "RandomZoom",
))
# fmt: on

#: All of them: the above, and what has no rate or another name for it.
PASS_THROUGH = NOISE | AUGMENTATION | {"ActivityRegularization", "Identity", "StochasticDepth"}

#: What a frozen base replaces by `Identity`. Wider than what the digest ignores, so that no digest changes.
SILENCED = AUGMENTATION | {"Solarization", "StochasticDepth"}


def rates_of(kind: str) -> tuple[str, ...]:
    """Return the names of random rates that a layer kind has.

    Examples
    --------
    >>> rates_of("LSTM")
    ('dropout', 'recurrent_dropout', 'drop_path_rate')
    """
    return RATES if kind in NOISE else RATES[2:]
