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
