"""Recommend options, from the pace of a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bottleneck.bases.precision import isa, resolve_precision
from bottleneck.extraction.profile import Clock, bottleneck_stage
from bottleneck.extraction.resources import gpus_here
from bottleneck.forward.batch_size import LONG
from bottleneck.schema import AskedPrecision, Precision

_HOUR = 3600.0


@dataclass(frozen=True)
class Machine:
    """What a suggestion depends on.

    Attributes
    ----------
    extensions : str
        See `bottleneck.bases.precision.isa`.
    gpus : int
        How many a worker could have.
    """

    extensions: str = ""
    gpus: int = 0

    @classmethod
    def here(cls) -> Machine:
        """Describe this machine, as far as possible without TensorFlow."""
        return cls(isa(), len(gpus_here()))


@dataclass(frozen=True)
class Suggestion:
    """Options for an extraction.

    Attributes
    ----------
    workers : int
        On this machine: one, which uses all of its processors, or one a GPU.
    batch : int or None
        None where the run is long enough to search for its own.
    precision : {"float32", "bfloat16", "float16", "auto"}
        Another one than was asked for only where forward passes are the bottleneck.
    machines : int
        How many like this one, in a cluster, would be done in an hour.
    """

    workers: int
    batch: int | None
    precision: AskedPrecision
    machines: int


def suggest(clock: Clock, seconds: float, batch: int, precision: Precision, machine: Machine) -> Suggestion:
    """Suggest options for a run that would take `seconds`.

    Examples
    --------
    >>> slow = Clock({"decode": 1.0, "forward": 9.0})
    >>> suggest(slow, 9000.0, 32, "float32", Machine("avx2 avx512_bf16"))
    Suggestion(workers=1, batch=None, precision='bfloat16', machines=3)
    >>> suggest(Clock({"decode": 9.0, "forward": 1.0}), 60.0, 64, "float32", Machine("avx2 avx512_bf16", 2))
    Suggestion(workers=2, batch=64, precision='float32', machines=1)
    """
    better: AskedPrecision = precision
    if precision == "float32" and bottleneck_stage(clock) == "forward":
        # Which float a GPU is made for only TensorFlow tells, and `auto` asks it.
        better = "auto" if machine.gpus else resolve_precision("auto", machine.extensions, None)
    machines = max(1, math.ceil(seconds / _HOUR))
    return Suggestion(max(1, machine.gpus), batch if seconds < LONG else None, better, machines)
