"""Divide a machine's threads and GPUs among its workers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_DEVICE = re.compile(r"nvidia[0-9]+")


@dataclass(frozen=True)
class WorkerResources:
    """What one worker may use.

    Attributes
    ----------
    threads : int
        Of a forward pass, and as many that decode.
    gpu : str or None
        The one device it sees, as CUDA_VISIBLE_DEVICES says it; None: whatever there is.
    """

    threads: int
    gpu: str | None = None

    def environment(self) -> Mapping[str, str]:
        """Give the variables that TensorFlow, oneDNN and CUDA read at start.

        Examples
        --------
        >>> environment = WorkerResources(2, "1").environment()
        >>> environment["TF_NUM_INTRAOP_THREADS"], environment["CUDA_VISIBLE_DEVICES"]
        ('2', '1')
        """
        variables = dict.fromkeys(
            ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), str(self.threads)
        )
        return variables if self.gpu is None else {**variables, "CUDA_VISIBLE_DEVICES": self.gpu}


@dataclass(frozen=True)
class WorkerSlot:
    """A worker's number among the `of` workers of its machine."""

    index: int = 0
    of: int = 1


def worker_resources(
    slot: WorkerSlot, cores: int, gpus: Sequence[str] = (), threads: int | None = None
) -> WorkerResources:
    """Give the worker in `slot` its share of a machine.

    Examples
    --------
    >>> [worker_resources(WorkerSlot(index, 3), cores=8) for index in range(3)]
    [WorkerResources(threads=2, gpu=None), WorkerResources(threads=2, gpu=None), WorkerResources(threads=2, gpu=None)]
    >>> [worker_resources(WorkerSlot(index, 4), cores=2, gpus=["0", "1"]).gpu for index in range(4)]
    ['0', '1', '0', '1']
    """
    return WorkerResources(
        threads or max(1, cores // slot.of), gpus[slot.index % len(gpus)] if gpus else None
    )


def number_slots(hosts: Sequence[str]) -> list[WorkerSlot]:
    """Number workers machine by machine; `hosts` names each one's machine.

    Examples
    --------
    >>> number_slots(["a", "b", "a"])
    [WorkerSlot(index=0, of=2), WorkerSlot(index=0, of=1), WorkerSlot(index=1, of=2)]
    """
    return [WorkerSlot(hosts[:at].count(host), hosts.count(host)) for at, host in enumerate(hosts)]


def cores_here() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus_here(devices: Path = Path("/dev")) -> list[str]:
    """List the GPUs a process sees, without taking memory through CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [name.strip() for name in visible.split(",")]
        return [name for name in named if name not in ("", "-1", "NoDevFiles")]
    try:
        names = os.listdir(devices)
    except OSError:
        return []
    count = sum(1 for name in names if _DEVICE.fullmatch(name))
    return [str(number) for number in range(count)]
