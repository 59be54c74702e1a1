"""Keras' layers that act in training only: in inference they hand their input on unchanged.

The digest looks through them, and a frozen base has them switched off, at any depth.
"""

from __future__ import annotations

#: Layers whose `rate` or `stddev` is randomness in training and nothing else.
NOISE = frozenset(
    {
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
    }
)
#: What Keras calls rates of randomness. The first two are that of `NOISE` alone; the others mean nothing else in Keras.
RATES = ("rate", "stddev", "dropout", "recurrent_dropout", "drop_path_rate")

#: Augmentation that hands pixels on unchanged in inference (`RandomCrop` does not: it crops the middle).
AUGMENTATION = frozenset(
    {
        "AugMix",
        "CutMix",
        "MixUp",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHeight",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomWidth",
        "RandomZoom",
    }
)
#: All of them: the above, and what has no rate or another name for it.
PASS_THROUGH = NOISE | AUGMENTATION | {"ActivityRegularization", "Identity", "StochasticDepth"}

#: What a frozen base has `Identity` for. Wider than what the digest looks through, so that no digest changes.
SILENCED = AUGMENTATION | {"Solarization", "StochasticDepth"}


def rates_of(kind: str) -> tuple[str, ...]:
    """Names that a layer of this kind may have a rate of randomness under.

    Examples
    --------
    >>> rates_of("LSTM")
    ('dropout', 'recurrent_dropout', 'drop_path_rate')
    """
    return RATES if kind in NOISE else RATES[2:]
