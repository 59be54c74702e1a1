"""What a pluggable thing must do: one Protocol for each kind.

The suites in ``tests/contracts/`` run over the catalog and hold every entry to these.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from bottleneck.schema import BaseSpec, Cache, Entry, FitFacts, Pixels, StoreSpec, Task, ViewPolicy


@runtime_checkable
class Source(Hashable, Protocol):
    """Where images come from.

    Picklable, and the copy equals it: a worker opens it again by value.
    """

    location: str

    @classmethod
    def claims(cls, location: str) -> bool:
        """Say whether a path or URL is of this kind, without reading."""

    @classmethod
    def open(cls, location: str) -> Self:
        """Open the source at `location`. Raises `SourceError`."""

    def entries(self) -> Iterator[Entry]:
        """Stream every regular file, in any order.

        Each folder that cannot be listed is an entry too. Raises `SourceError` for a layout that cannot be.
        """

    def read(self, path: bytes) -> bytes:
        """Read one entry, from any thread. Raises OSError or `Rejected`."""

    def passed_over(self) -> Mapping[str, int]:
        """Count what the last `entries()` left out, by reason."""


@runtime_checkable
class Forward(Protocol):
    """The frozen base in extraction: bytes to pixels, pixels to rows.

    `batch` is the one constant batch shape of every call; `environment` names what the bits depend on.
    """

    spec: StoreSpec
    batch: int
    environment: Mapping[str, str]

    def decode(self, data: bytes) -> np.ndarray:
        """Decode to (height, width, 3) float32 in 0..255, from any thread."""

    def view(self, pixels: np.ndarray, key: bytes, policy: ViewPolicy) -> np.ndarray:
        """Make the augmented view of `pixels` with this key, from any thread."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Compute (batch, *shape) float32 from (batch, height, width, 3) float32.

        The caller overwrites `pixels` afterwards.
        """


@runtime_checkable
class SeveralCuts(Protocol):
    """A forward pass that gives the rows of several cuts at once.

    Its `spec` and `features` are those of the first cut.
    """

    specs: tuple[StoreSpec, ...]

    def several(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute (batch, *shape) float32 for each of `specs`."""


@runtime_checkable
class Preparing(Protocol):
    """A forward pass that is set up during its first passes."""

    def ready(self, coming: int = 0) -> None:
        """Wait until it is set up; `coming` files follow."""


@runtime_checkable
class Exact(Protocol):
    """A forward pass of reduced precision that can show what this costs."""

    def exact(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute (n, *shape) of each cut in float32."""


@runtime_checkable
class Tunable(Protocol):
    """A forward pass that can be tried at other batch shapes."""

    def rate(self, batch: int) -> float:
        """Measure images a second. Raises MemoryError where `batch` does not fit."""


@runtime_checkable
class Head(Protocol):
    """A scikit-learn classifier that can give itself back as stock layers.

    Rows may come as (n, *shape): heads flatten what they need flat. The constructor only stores; `fit` works;
    fitted attributes end in an underscore; `clone` gives an equal unfitted head.
    """

    classes_: np.ndarray

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation_data: tuple[Any, Any] | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        views: int = 1,
    ) -> Self:
        """Learn from rows `X` and labels `y` (n,).

        Heads without epochs ignore the first two keywords. As many rows as `views` side by side are of one image, the
        first of them the image itself: an epoch sees one of them, a head without epochs takes each as a part of an
        image.
        """

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,)."""

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities (n, k), float32, columns in `classes_` order."""

    def logits(self, X: Any) -> np.ndarray:
        """What the softmax is taken of: (n, k) float32."""

    def layers(self) -> list[Any]:
        """Give the fitted head as Keras layers with weights.

        The last two are named ``logits`` and ``probabilities``.
        """

    def fit_facts(self) -> FitFacts:
        """Say which solver ran, on which rows and how well."""

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Give the document and arrays from which `restore` makes this head."""

    def with_arrays(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Give this head with other arrays and no facts of a fit."""

    @classmethod
    def prepare(cls, document: Mapping[str, Any]) -> tuple[Self, dict[str, tuple[int, ...]]]:
        """Give the head without its arrays, and their names and shapes."""

    def layout(self, feature_shape: tuple[int, ...], classes: int) -> dict[str, tuple[int, ...]]:
        """Give names and shapes of the arrays on such rows."""

    @classmethod
    def restore(cls, document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Make the head that `state` described. Raises `HeadError`."""


class BaseFamily(Protocol):
    """A module of bases: their specs, and how to build one."""

    def specs(self) -> Mapping[str, BaseSpec]:
        """Every base of the family; imports nothing heavy."""

    def build(self, spec: BaseSpec, *, top: bool, size: int) -> Any:
        """A `keras.Model` with random weights from (size, size, 3) images."""

    def pretrained(self, spec: BaseSpec, *, top: bool, size: int, cache: Cache) -> Any:
        """The same with its published weights, fetched or taken from the cache."""


@dataclass(frozen=True)
class Reader:
    """What runs one format without this package.

    It is a file of ``exports/readers/`` that stands alone. It imports the format's library and NumPy.
    ``open_model(path)`` gives a function from (n, height, width, 3) pixels, uint8 or float in 0..255, to a dict of the
    arrays ``features``, ``logits`` and ``probabilities``; ``document(path)`` gives what `bottleneck.json` in the
    artefact says; where the format takes image files, ``open_files(path)`` gives a function from a list of their
    contents to a dict of ``probabilities``.

    Attributes
    ----------
    name : str
        The file's name without suffix.
    libraries : tuple of str
        Modules that making and running the format need beyond what this package always brings.
    extra : str
        The extra of this distribution that brings them; empty when there are none.
    """

    name: str
    libraries: tuple[str, ...] = ()
    extra: str = ""


@dataclass(frozen=True, eq=False)
class Making:
    """What an artefact takes beside the model.

    Attributes
    ----------
    document : Mapping
        What `bottleneck.json` says: ``classes`` and the recipe among it. It goes into every artefact as it is.
    pixels : Pixels
        The pixel contract, for signatures that take image files.
    sample : numpy.ndarray
        (n, height, width, 3) float32 in 0..255: representative images, for kinds that are quantized by example. Others
        do not look at it, and it may be empty.
    """

    document: Mapping[str, Any]
    pixels: Pixels
    sample: np.ndarray


class Exporter(Protocol):
    """One kind of artefact.

    The catalog makes it without arguments, and names it `kind`. Every artefact gives three named outputs, ``features``,
    ``logits`` and ``probabilities``, and carries what `Making.document` says.
    """

    kind: str
    """The catalog's name."""

    name: str
    """What the file or folder is called that it writes; no two kinds share one."""

    tolerance: float | None
    """Largest difference from the cached head that passes, as a share of the spread between images; None: the kind
    rounds, and is judged by how often its first choice is the head's."""

    reader: Reader
    """What runs it without this package, and which libraries making and running it need."""

    takes_bytes: bool
    """Whether it has an entry for raw image files, `open_files` of its reader, which gives probabilities."""

    live: bool
    """Whether Keras loads it, to be called, trained on and built around: then it is tried in every way."""

    def write(self, model: Any, folder: Path, making: Making) -> Path:
        """Write merged `model` into `folder`, and return the artefact's path.

        `folder` exists. An artefact of that name is replaced when the new one is whole, and stays as it is when the
        write fails; nothing else in `folder` is touched, and nothing else is left there. Raises `ExportError`: a
        library is missing, the model cannot take this form, or the disk refuses.
        """


class EngineWorker(Protocol):
    """Where one worker of an engine works.

    One task at a time, asked from one thread at a time.
    """

    def compute(self, task: Task, done: Callable[[int], None]) -> Any:
        """Run a task through `extraction.worker.task.run_task` somewhere, and return its outcomes.

        `done` is told now and then how many of its images are done so far, fewer again after a new start. A machine
        that dies under way is made up for here. Raises `BottleneckError`.
        """


class Readers(Protocol):
    """Processes somewhere that read files, made from a `WorkerConfig`.

    Entered, they can be asked; left, what was asked of them is forgotten.

    Attributes
    ----------
    room : int
        The number of calls at once that keeps all of them busy.
    """

    room: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Have one of them call `work`, which travels by pickle.

        Where that process dies, another one calls it again. The future raises `EngineError` where that does not help.
        """


class Engine(Protocol):
    """Workers somewhere, made from a `WorkerConfig` and an `extraction.engines.supervisor.Assignment`.

    Entered, it has a `Supervisor` made for each worker, which checks its machine first, and gives an `EngineWorker` for
    each. Left, it ends all of them at once, in the midst of tasks too, and leaves no process behind; one that is waited
    for then raises.
    """

    def __enter__(self) -> Sequence[EngineWorker]: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
