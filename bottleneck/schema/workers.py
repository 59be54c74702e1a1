"""The workers of an extraction: engine, number, threads."""

from __future__ import annotations

from pydantic import Field

from bottleneck.schema.values import Frozen


class WorkerConfig(Frozen):
    """The workers of an extraction.

    Attributes
    ----------
    engine : str
        A name of `catalog.ENGINES`.
    workers : int or None
        None: the engine decides (one a GPU, all that a cluster has, else one).
    threads : int or None
        Threads of one worker; None: the machine's cores divided by its workers.
    address : str or None
        Address of a running cluster; None: workers are started on this machine.

    Examples
    --------
    >>> WorkerConfig(), WorkerConfig().is_alone, WorkerConfig(workers=2).is_alone
    (WorkerConfig(engine='local', workers=None, threads=None, address=None), True, False)
    """

    engine: str = "local"
    workers: int | None = Field(default=None, ge=1, le=4096)
    threads: int | None = Field(default=None, ge=1, le=4096)
    address: str | None = Field(default=None, min_length=1)

    @property
    def is_alone(self) -> bool:
        """Test whether one worker here has the whole machine: no engine then."""
        return self.engine == "local" and self.workers in (None, 1) and self.threads is None
