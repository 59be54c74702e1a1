"""Every base of keras.applications, as one table.

Cuts that need no top work at any size; those in the top (`fc6`, `predictions`, …) exist at the default size only.
`bottleneck bases` prints this table and `scripts/check_bases.py` holds it to built networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from bottleneck.errors import BaseError
from bottleneck.schema import BaseSpec, Cache, CutPoint


class _Family(NamedTuple):
    preprocessing: str
    #: Last feature map without the top.
    last: str
    blocks: str
    cuts: Mapping[str, CutPoint] = {}
    smallest: int = 32
    #: `pooling` argument of the builder without its top.
    pooling: str | None = None


def _pools(*layers: str) -> dict[str, CutPoint]:
    return {f"pool{i}": CutPoint(layer) for i, layer in enumerate(layers, 1)}


def _stages(**layers: str) -> dict[str, CutPoint]:
    return {name: CutPoint(layer, "avg") for name, layer in layers.items()}


_TOP = CutPoint("predictions", top=True)

_VGG = _Family(
    "caffe",
    "block5_pool",
    r"(block\d+)_.*",
    {
        **_pools("block1_pool", "block2_pool", "block3_pool", "block4_pool", "block5_pool"),
        "fc6": CutPoint("fc1", top=True),
        "fc7": CutPoint("fc2", top=True),
        "penultimate": CutPoint("fc2", top=True),
        "predictions": _TOP,
    },
)


def _resnet(conv3: int, conv4: int) -> _Family:
    # Numbers of blocks in those stages.
    cuts = _stages(conv2="conv2_block3_out", conv3=f"conv3_block{conv3}_out", conv4=f"conv4_block{conv4}_out")
    return _Family("caffe", "conv5_block3_out", _RESNET_BLOCKS, cuts)


_RESNET_BLOCKS = r"(conv1|conv\d+_block\d+)_.*"
_FAMILIES: Mapping[str, _Family] = {
    "vgg": _VGG,
    "resnet50": _resnet(4, 6),
    "resnet101": _resnet(4, 23),
    "resnet152": _resnet(8, 36),
    "resnetv2": _Family("tf", "post_relu", _RESNET_BLOCKS),
    "inception": _Family("tf", "mixed10", r"(mixed\d+)", smallest=75),
    "inceptionresnet": _Family(
        "tf", "conv_7b_ac", r"(mixed_\d[ab]|block\d+_\d+|conv_7b)(?:_.*)?", smallest=75
    ),
    # Blocks end where the residual sums do: there one tensor carries everything.
    "xception": _Family(
        "tf", "block14_sepconv2_act", r"(block1_conv2_act|add(?:_\d+)?|block14_sepconv2_act)", smallest=71
    ),
    "mobilenet": _Family("tf", "conv_pw_13_relu", r"(conv1|conv_pw_\d+)(?:_.*)?"),
    "mobilenetv2": _Family("tf", "out_relu", r"(Conv1|expanded_conv|block_\d+|Conv_1)(?:_.*)?"),
    "mobilenetv3": _Family("none", "output", r"(expanded_conv(?:_\d+)?|conv_1|conv)(?:_[a-z].*)?"),
    "densenet": _Family("torch", "relu", r"(conv1|pool\d+|conv\d+_block\d+)(?:_.*)?"),
    "nasnet": _Family("tf", "output", r"((?:normal|reduction)_concat_.*)"),
    "efficientnet": _Family("none", "top_activation", r"(stem|block\d+[a-z]|top)_(?!dropout).*"),
    # The norm after the global average belongs to the features, so the builder pools before it.
    "convnext": _Family("none", "output", r"(.*_stem|add(?:_\d+)?|.*_downsampling_block_\d+)", pooling="avg"),
}


class _Row(NamedTuple):
    builder: str
    family: str
    size: int
    parameters: int
    #: Rows and channels of the last map at the default size.
    side: int
    width: int


_TABLE: tuple[_Row, ...] = (
    _Row("VGG16", "vgg", 224, 14_714_688, 7, 512),
    _Row("VGG19", "vgg", 224, 20_024_384, 7, 512),
    _Row("ResNet50", "resnet50", 224, 23_587_712, 7, 2048),
    _Row("ResNet101", "resnet101", 224, 42_658_176, 7, 2048),
    _Row("ResNet152", "resnet152", 224, 58_370_944, 7, 2048),
    _Row("ResNet50V2", "resnetv2", 224, 23_564_800, 7, 2048),
    _Row("ResNet101V2", "resnetv2", 224, 42_626_560, 7, 2048),
    _Row("ResNet152V2", "resnetv2", 224, 58_331_648, 7, 2048),
    _Row("InceptionV3", "inception", 299, 21_802_784, 8, 2048),
    _Row("InceptionResNetV2", "inceptionresnet", 299, 54_336_736, 8, 1536),
    _Row("Xception", "xception", 299, 20_861_480, 10, 2048),
    _Row("MobileNet", "mobilenet", 224, 3_228_864, 7, 1024),
    _Row("MobileNetV2", "mobilenetv2", 224, 2_257_984, 7, 1280),
    _Row("MobileNetV3Small", "mobilenetv3", 224, 939_120, 7, 576),
    _Row("MobileNetV3Large", "mobilenetv3", 224, 2_996_352, 7, 960),
    _Row("DenseNet121", "densenet", 224, 7_037_504, 7, 1024),
    _Row("DenseNet169", "densenet", 224, 12_642_880, 7, 1664),
    _Row("DenseNet201", "densenet", 224, 18_321_984, 7, 1920),
    _Row("NASNetMobile", "nasnet", 224, 4_269_716, 7, 1056),
    _Row("NASNetLarge", "nasnet", 331, 84_916_818, 11, 4032),
    _Row("EfficientNetB0", "efficientnet", 224, 4_049_571, 7, 1280),
    _Row("EfficientNetB1", "efficientnet", 240, 6_575_239, 8, 1280),
    _Row("EfficientNetB2", "efficientnet", 260, 7_768_569, 9, 1408),
    _Row("EfficientNetB3", "efficientnet", 300, 10_783_535, 10, 1536),
    _Row("EfficientNetB4", "efficientnet", 380, 17_673_823, 12, 1792),
    _Row("EfficientNetB5", "efficientnet", 456, 28_513_527, 15, 2048),
    _Row("EfficientNetB6", "efficientnet", 528, 40_960_143, 17, 2304),
    _Row("EfficientNetB7", "efficientnet", 600, 64_097_687, 19, 2560),
    _Row("EfficientNetV2B0", "efficientnet", 224, 5_919_312, 7, 1280),
    _Row("EfficientNetV2B1", "efficientnet", 240, 6_931_124, 8, 1280),
    _Row("EfficientNetV2B2", "efficientnet", 260, 8_769_374, 9, 1408),
    _Row("EfficientNetV2B3", "efficientnet", 300, 12_930_622, 10, 1536),
    _Row("EfficientNetV2S", "efficientnet", 384, 20_331_360, 12, 1280),
    _Row("EfficientNetV2M", "efficientnet", 480, 53_150_388, 15, 1280),
    _Row("EfficientNetV2L", "efficientnet", 480, 117_746_848, 15, 1280),
    _Row("ConvNeXtTiny", "convnext", 224, 27_820_128, 7, 768),
    _Row("ConvNeXtSmall", "convnext", 224, 49_454_688, 7, 768),
    _Row("ConvNeXtBase", "convnext", 224, 87_566_464, 7, 1024),
    _Row("ConvNeXtLarge", "convnext", 224, 196_230_336, 7, 1536),
    _Row("ConvNeXtXLarge", "convnext", 224, 348_147_968, 7, 2048),
)


@cache
def specs() -> Mapping[str, BaseSpec]:
    """Map names in lower case to bases; imports nothing heavy.

    Examples
    --------
    >>> len(specs()), specs()["inceptionv3"].cuts["penultimate"]
    (40, CutPoint(layer='mixed10', pooling='avg', top=False))
    """
    return {row.builder.lower(): _spec(row) for row in _TABLE}


def _spec(row: _Row) -> BaseSpec:
    family = _FAMILIES[row.family]
    # Without a top the default is the last map, averaged: what the network's own classifier sees. VGG's own
    # classifier flattens instead, so its default is the map as it is.
    flattens = row.family == "vgg"
    cuts = dict(family.cuts)
    average = CutPoint(family.last, "avg" if family.pooling is None else "none")
    if not flattens:
        cuts = {"avg_pool": average, "penultimate": average, **cuts}
        if row.family != "convnext":
            cuts |= {"map": CutPoint(family.last), "predictions": _TOP}
    if row.family == "mobilenetv3":
        # One more layer lies between the average and the classifier.
        cuts["penultimate"] = CutPoint("dropout", "avg", top=True)
    if row.family == "convnext":
        cuts["predictions"] = CutPoint(f"convnext_{row.builder[8:].lower()}_head_dense", top=True)
    return BaseSpec(
        name=row.builder.lower(),
        builder=f"keras.applications:{row.builder}",
        size=row.size,
        preprocessing=family.preprocessing,
        cut="pool5" if flattens else "avg_pool",
        cuts=cuts,
        blocks=family.blocks,
        parameters=row.parameters,
        feature=(row.side, row.side, row.width) if flattens else (row.width,),
        smallest=family.smallest,
    )


def build(spec: BaseSpec, *, top: bool, size: int, weights: str | None = None) -> Any:
    """Build the network of `spec` with initial or downloaded weights.

    Parameters
    ----------
    spec : BaseSpec
    top : bool
        With the classifier; exists at the default size only.
    size : int
        Height and width of the image.
    weights : {None, "imagenet"}
        Initial ones, or those that Keras downloads.

    Returns
    -------
    keras.Model
        From (size, size, 3) images; unnamed layers are numbered from zero.

    Raises
    ------
    BaseError
        The size is too small, or is not the default one that the top needs.
    """
    import keras

    from bottleneck.bases.layer_names import fresh_names

    check_size(spec, top=top, size=size)
    name = spec.builder.partition(":")[2]
    family = next(row.family for row in _TABLE if row.builder == name)
    options: dict[str, Any] = {} if top else {"pooling": _FAMILIES[family].pooling}
    with fresh_names():
        return getattr(keras.applications, name)(
            weights=weights, include_top=top, input_shape=(size, size, 3), **options
        )


def check_size(spec: BaseSpec, *, top: bool, size: int) -> None:
    """Raise `BaseError` when `spec` cannot be built at `size`.

    Examples
    --------
    >>> check_size(specs()["vgg16"], top=False, size=96)
    """
    if top and size != spec.size:
        raise BaseError(
            f"--size {size}: this cut lies in the top of {spec.name}, which exists at {spec.size} only; "
            f"leave --size out, or use a cut below the top, such as {spec.cut}"
        )
    if size < spec.smallest:
        raise BaseError(f"--size {size}: {spec.name} takes {spec.smallest} or more")


def pretrained(spec: BaseSpec, *, top: bool, size: int, cache: Cache) -> Any:
    """Build the network with the ImageNet weights that Keras downloads.

    Raises
    ------
    BaseError
        The file could not be fetched.
    """
    del cache  # Keras keeps these files itself, by their hashes
    try:
        return build(spec, top=top, size=size, weights="imagenet")
    except BaseError:
        raise
    except Exception as error:  # Keras raises a plain Exception when a download fails
        text = " ".join(str(error).split())[:300]
        raise BaseError(
            f"the ImageNet weights of {spec.name} could not be fetched: {text}; give a file that you have by "
            "--weights PATH; --base squeezenet needs a package index only; --weights random:0 needs nothing"
        ) from error
