"""Ask for oneDNN's kernels, and tell whether they compute.

Left alone, TensorFlow takes oneDNN's where the processor has instructions made for neural networks (AVX-512 VNNI and
later), and Eigen's on every other x86, where oneDNN's, for AVX2, are faster too.
"""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Mapping

_ASKED = "TF_ENABLE_ONEDNN_OPTS"

#: Names on Linux and Windows. On other processors the variable enables what TensorFlow calls experimental.
_X86 = ("x86_64", "AMD64")


def requested_environment() -> Mapping[str, str]:
    """Give the environment of our processes, where the user says nothing else.

    Examples
    --------
    >>> set(requested_environment().items()) <= {("TF_ENABLE_ONEDNN_OPTS", "1")}
    True
    """
    return {_ASKED: "1"} if platform.machine() in _X86 else {}


def onednn_in_use() -> bool:
    """Whether TensorFlow, which this imports, computes by oneDNN's kernels in this process.

    Examples
    --------
    >>> onednn_in_use()  # doctest: +SKIP
    True
    """
    try:
        # There is no public function; TensorFlow's own tests ask this one.
        port = importlib.import_module("tensorflow.python.util._pywrap_util_port")
        return bool(port.IsMklEnabled())
    except (ImportError, AttributeError):
        return os.environ.get(_ASKED, "0").lower() in ("1", "true")
