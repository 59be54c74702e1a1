"""Fine-tuning: its settings and its results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, field_validator

from bottleneck.errors import UnknownName, UsageError
from bottleneck.schema.values import Frozen, parse
from bottleneck.schema.views import MOST_VIEWS, ViewPolicy

TunePrecision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TuneStage(Frozen):
    """What one stage sets free beyond the stages before it.

    Parameters
    ----------
    unfreeze : tuple of str
        Each ``top:N``, ``all``, or the name of a block or a layer.

    Examples
    --------
    >>> TuneStage.parse("block4, block5").unfreeze, str(TuneStage.parse("top:2"))
    (('block4', 'block5'), 'top:2')
    """

    unfreeze: tuple[str, ...] = Field(min_length=1)

    @field_validator("unfreeze")
    @classmethod
    def _check(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name.startswith("top:") and not re.fullmatch(r"top:0*[1-9]\d{0,5}", name):
                raise ValueError(f"{name!r}: expected top:N with N of at least 1, such as top:2")
        return names

    @property
    def top(self) -> int:
        """Give the largest N of its ``top:N``; 0 where it has none."""
        return max((int(name[4:]) for name in self.unfreeze if name.startswith("top:")), default=0)

    def __str__(self) -> str:
        return ",".join(self.unfreeze)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``--unfreeze``: one name, or several with commas between."""
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        return parse(cls, {"unfreeze": names}, f"--unfreeze {text!r}")


class TuneSettings(Frozen):
    """How a fine-tuning trains; the same for each of its stages.

    Parameters
    ----------
    epochs : int
        Most epochs of a stage.
    patience : int or None
        A stage ends after this many epochs without a lower validation loss. None: it runs all epochs.
    batch_size : int
    optimizer : {"sgd", "adam", "adamw", "rmsprop"}
    rate : float
        Learning rate of the head and, with `block_decay` 1, of everything that trains.
    momentum : float
        For sgd.
    block_decay : float
        The highest block that trains has the rate times this, the next one below it times its square, and so on.
    rates : mapping of str to float
        Rates of single blocks or layers by name, or of the ``head``.
    warmup : float
        Epochs in which the rate rises from zero, step by step.
    schedule : {"constant", "cosine", "plateau"}
        The rate after that: constant; a half cosine down to zero at the last epoch; or times `plateau_factor` after
        `plateau_patience` epochs without a lower validation loss.
    class_weight : "balanced" or None
    precision : {"float32", "mixed_bfloat16", "mixed_float16"}
        Precision of the training steps in the base; the head, weights and measurements are float32.
    views : int
        Each epoch sees one of this many views of each image, itself included.
    augment : ViewPolicy or None
        How views are made. With `views` 1, a new view of each image every epoch, from its pixels.
    full : bool
        From the pixels, even where the part below could be cached.
    seed : int
        Seed of the order of images and of the choice of views.
    """

    epochs: int = Field(default=10, ge=1, le=10_000)
    patience: int | None = Field(default=3, ge=1)
    batch_size: int = Field(default=32, ge=1)
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    rate: Rate = 1e-4
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    block_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    rates: Mapping[str, Rate] = Field(default_factory=dict)
    warmup: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    plateau_factor: float = Field(default=0.2, gt=0.0, lt=1.0)
    plateau_patience: int = Field(default=2, ge=1)
    class_weight: Literal["balanced"] | None = None
    precision: TunePrecision = "float32"
    views: int = Field(default=1, ge=1, le=MOST_VIEWS)
    augment: ViewPolicy | None = None
    full: bool = False
    seed: int = Field(default=0, ge=0)

    @property
    def needs_pixels(self) -> bool:
        """Test whether each epoch begins at the pixels."""
        return self.full or (self.augment is not None and self.views == 1)


class StageDone(Frozen):
    """The result of one stage.

    Parameters
    ----------
    unfreeze : tuple of str
        As asked.
    trained : tuple of str
        The layers of the base that trained; the head trained with them.
    parameters : int
        How many numbers trained, the head's included.
    frozen : int
        How many numbers above the prefix, moving statistics included, stayed the same to the bit after every epoch.
    prefix : str or None
        The layer whose cached output the stage trained on; None: from the pixels.
    history : tuple of mapping
        An entry an epoch, from 0: the model as the stage found it. ``epoch``, ``loss``, ``accuracy`` (from epoch 1),
        ``val_loss``, ``val_accuracy`` where images are held out, ``rate``, ``seconds``.
    best_epoch : int
        The epoch whose weights were kept; 0: those that it began with.
    """

    unfreeze: tuple[str, ...]
    trained: tuple[str, ...]
    parameters: int
    frozen: int
    prefix: str | None
    history: tuple[Mapping[str, FiniteFloat], ...]
    best_epoch: int


class Tuned(Frozen):
    """How a run came from another one by fine-tuning.

    Parameters
    ----------
    origin : str
        Folder of the run before.
    origin_recipe : str
        Fingerprint of its features.
    base : str
        What the base was called before any fine-tuning.
    blocks : str
        Its block pattern, so that the tuned base still has blocks; empty where it has none.
    settings : TuneSettings
    stages : tuple of StageDone
    kept : {"before", "after"}
        ``before``: no epoch lowered the validation loss, so this run is the model as it was. ``after``: the tuned
        model; `verdict` says whether it is better.
    """

    origin: str
    origin_recipe: str
    base: str
    blocks: str
    settings: TuneSettings
    stages: tuple[StageDone, ...]
    kept: Literal["before", "after"]

    @property
    def verdict(self) -> Literal["better", "unchanged", "unmeasured"]:
        """Give the verdict of the validation images on the tuned model.

        ``better``: a lower validation loss. ``unchanged``: no epoch was lower, so the run before was kept.
        ``unmeasured``: no image was held out, so the last epoch was kept, better or not.
        """
        if not all("val_loss" in entry for stage in self.stages for entry in stage.history):
            return "unmeasured"
        return "better" if self.kept == "after" else "unchanged"


def parse_rates(texts: Sequence[str]) -> dict[str, Any]:
    """Parse ``--rate 1e-4`` and ``--rate NAME=1e-5`` into `rate` and `rates`.

    Examples
    --------
    >>> parse_rates(["1e-4", "block4=1e-5"])
    {'rate': 0.0001, 'rates': {'block4': 1e-05}}
    """
    found: dict[str, Any] = {}
    rates: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError as error:
            raise UsageError(f"--rate {text!r}: expected a number, or NAME=NUMBER (block4=1e-5)") from error
        if equals:
            rates[name.strip()] = number
        else:
            found["rate"] = number
    return {**found, "rates": rates} if rates else found


def parse_tune(texts: Sequence[str]) -> dict[str, Any]:
    """Parse ``--tune KEY=VALUE`` into fields of `TuneSettings`.

    ``none`` is None, and a rate may be a block's own.

    Examples
    --------
    >>> parse_tune(["epochs=3", "patience=none", "rate=1e-3", "rate=block4=1e-5"])
    {'epochs': '3', 'patience': None, 'rate': 0.001, 'rates': {'block4': 1e-05}}
    """
    found: dict[str, Any] = {}
    rates = []
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(f"--tune {text!r}: expected KEY=VALUE, for instance --tune epochs=5")
        if key not in TuneSettings.model_fields or key == "rates":
            known = [name for name in TuneSettings.model_fields if name != "rates"]
            raise UnknownName("setting of fine-tuning", key, known)
        if key == "rate":
            rates.append(value)
        else:
            found[key] = None if value.lower() == "none" else value
    return {**found, **parse_rates(rates)}
