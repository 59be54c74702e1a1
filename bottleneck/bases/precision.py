"""Choose the number type that this machine computes a base in."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from bottleneck.errors import UsageError
from bottleneck.schema import AskedPrecision, Precision

#: Vector extensions that kernels choose by, and so part of the numeric environment.
# fmt: off
_EXTENSIONS = (
    "avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx_vnni", "avx512_vnni", "amx_bf16", "asimd", "sve", "bf16",
)
# fmt: on

#: Those that multiply bfloat16 in hardware: elsewhere it is emulated, slower and with other bits.
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})

#: Of NVIDIA's GPUs: from Volta on they have tensor cores.
_TENSOR_CORES = (7, 0)


def isa() -> str:
    """List the vector extensions of this machine's processor.

    Examples
    --------
    >>> isinstance(isa(), str)
    True
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return platform.processor() or "unknown"
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            return " ".join(name for name in _EXTENSIONS if name in flags)
    return "unknown"


def resolve_precision(
    asked: AskedPrecision, extensions: str, capability: tuple[int, int] | None
) -> Precision:
    """Resolve `asked` for a machine with these extensions and GPU.

    Parameters
    ----------
    asked : {"float32", "bfloat16", "float16", "auto"}
    extensions : str
        See `isa`.
    capability : (int, int) or None
        Compute capability of the GPU; None where forward passes run on the processor.

    Raises
    ------
    UsageError
        The machine has no hardware for it.

    Examples
    --------
    >>> resolve_precision("auto", "avx2 avx512_bf16", None), resolve_precision("auto", "avx2", (8, 0))
    ('bfloat16', 'float16')
    """
    cores = capability is not None and capability >= _TENSOR_CORES
    fastest: Precision = "float32"
    if cores:
        fastest = "float16"
    elif capability is None and _BFLOAT16 & set(extensions.split()):
        fastest = "bfloat16"
    if asked == "auto":
        return fastest
    if asked in ("float32", fastest):
        return asked
    device = (
        "this processor"
        if capability is None
        else f"a GPU of compute capability {capability[0]}.{capability[1]}"
    )
    also = f"{fastest} or float32" if fastest != "float32" else "float32"
    raise UsageError(
        f"--precision {asked}: {device} is not made for it, and emulating it would be slow and give other numbers; "
        f"use {also}, or auto"
    )


def here(asked: AskedPrecision) -> Precision:
    """Resolve `asked` on this machine; raises as `resolve_precision`.

    TensorFlow is imported only where it matters which GPU there is.
    """
    return "float32" if asked == "float32" else resolve_precision(asked, isa(), _capability())


def machine() -> list[str]:
    """List what `here` depends on, without importing TensorFlow.

    It is part of the key of a remembered digest.
    """
    gpus = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    return [isa(), *gpus, os.environ.get("CUDA_VISIBLE_DEVICES", "all")]


def _capability() -> tuple[int, int] | None:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
    # A GPU that does not say, such as another maker's, is asked for float32 alone.
    return tuple(capability) if capability else (0, 0)
