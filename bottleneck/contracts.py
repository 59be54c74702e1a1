"""What a pluggable thing must do: one Protocol for each kind the catalog lists.

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
    """Where images come from. Picklable, and the copy equals it: a worker opens it again by value."""

    location: str

    @classmethod
    def claims(cls, location: str) -> bool:
        """Whether `location` (an absolute path or a URL) is of this kind; looks, but does not read."""

    @classmethod
    def open(cls, location: str) -> Self:
        """The source at `location`. Raises `SourceError` when it cannot be used as it stands."""

    def entries(self) -> Iterator[Entry]:
        """Every regular file (and each folder that cannot be listed), streamed in any order.

        Raises `SourceError` for a layout that cannot be.
        """

    def read(self, path: bytes) -> bytes:
        """The bytes of one entry; safe from several threads. Raises OSError or `Rejected`."""

    def passed_over(self) -> Mapping[str, int]:
        """What the last `entries()` left out and why (links that dangle, devices, …), with counts."""


@runtime_checkable
class Forward(Protocol):
    """The frozen base as extraction sees it: bytes to pixels, pixels to rows.

    `batch` is the one constant batch shape of every call; `environment` names what the bits depend on.
    """

    spec: StoreSpec
    batch: int
    environment: Mapping[str, str]

    def decode(self, data: bytes) -> np.ndarray:
        """(height, width, 3) float32 in 0..255; safe from several threads. Raises `Rejected`."""

    def view(self, pixels: np.ndarray, key: bytes, policy: ViewPolicy) -> np.ndarray:
        """The augmented view of decoded `pixels` that has this key, of the same shape; safe from several threads."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """(batch, height, width, 3) float32 to (batch, *shape) float32; `pixels` is filled anew afterwards."""


@runtime_checkable
class SeveralCuts(Protocol):
    """A forward pass that gives the rows of several cuts at once; its `spec` and `features` are the first one's."""

    specs: tuple[StoreSpec, ...]

    def several(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """(batch, height, width, 3) float32 to (batch, *shape) float32 for each of `specs`."""


@runtime_checkable
class Preparing(Protocol):
    """A forward pass that is still being set up, beside its first passes, when it is there."""

    def ready(self, coming: int = 0) -> None:
        """Wait until it is set up, for so many `coming` files too: what is timed from then on is work alone."""


@runtime_checkable
class Exact(Protocol):
    """A forward pass of reduced precision that can show what this costs."""

    def exact(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """The rows of each cut in float32: (n, height, width, 3) to (n, *shape)."""


@runtime_checkable
class Tunable(Protocol):
    """A forward pass that can be tried at other batch shapes."""

    def rate(self, batch: int) -> float:
        """Images a second at this shape. Raises MemoryError where it does not fit."""


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
        """Learn from rows `X` and labels `y` (n,); heads without epochs take the first keywords and ignore them.

        So many `views` side by side are of one image, the first of them the image itself: an epoch sees one of
        them, a head without epochs takes each as a part of an image.
        """

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,)."""

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities (n, k), float32, columns in `classes_` order."""

    def logits(self, X: Any) -> np.ndarray:
        """What the softmax is taken of: (n, k) float32."""

    def layers(self) -> list[Any]:
        """The fitted head as stock Keras layers with weights, the last two named ``logits`` and ``probabilities``."""

    def fit_facts(self) -> FitFacts:
        """Which solver ran, on which rows and how well, as far as the head knows."""

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(JSON-able, arrays) from which `restore` makes an equal head."""

    def with_arrays(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """This head with other arrays, of which no fact of its fit holds. Raises as `restore`."""

    @classmethod
    def prepare(cls, document: Mapping[str, Any]) -> tuple[Self, dict[str, tuple[int, ...]]]:
        """The head without its arrays, and the names and shapes that these must have, known before any is read."""

    def layout(self, feature_shape: tuple[int, ...], classes: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the arrays on such rows, from the settings alone."""

    @classmethod
    def restore(cls, document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """The head that `state` described. Raises `HeadError` on anything that does not fit."""


class BaseFamily(Protocol):
    """A module of bases: specs by name, and how to build one of them."""

    def specs(self) -> Mapping[str, BaseSpec]:
        """Every base of the family; imports nothing heavy."""

    def build(self, spec: BaseSpec, *, top: bool, size: int) -> Any:
        """A `keras.Model` with random weights from (size, size, 3) images."""

    def pretrained(self, spec: BaseSpec, *, top: bool, size: int, cache: Cache) -> Any:
        """The same with its published weights, fetched or taken from the cache."""


@dataclass(frozen=True)
class Reader:
    """What runs one format without this package: a file of ``exports/readers/`` that stands alone.

    It imports the format's library and NumPy. ``open_model(path)`` gives a function from (n, height, width, 3) pixels,
    uint8 or float in 0..255, to a dict of the arrays ``features``, ``logits`` and ``probabilities``;
    ``document(path)`` gives what `bottleneck.json` in the artefact says; where the format takes image files,
    ``open_files(path)`` gives a function from a list of their contents to a dict of ``probabilities``.

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
    """What goes into an artefact beside the model, or is needed to make it.

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
    """One kind of artefact, made without arguments from the catalog, which names it `kind`.

    Every artefact gives three named outputs, ``features``, ``logits`` and ``probabilities``, and carries what
    `Making.document` says.
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
        """Write merged `model` into `folder`, which exists, and return the path of the file or folder made there.

        An artefact of that name is replaced when the new one is whole, and stays as it is when the write fails;
        nothing else in `folder` is touched, and nothing else is left there. Raises `ExportError`: a library is
        missing, the model cannot take this form, or the disk refuses.
        """


class EngineWorker(Protocol):
    """Where one worker of an engine works: one task at a time, asked from one thread at a time."""

    def compute(self, task: Task, done: Callable[[int], None]) -> Any:
        """Run a task through `extraction.task.run_task` somewhere, and return its outcomes.

        `done` is told now and then how many of its images are done so far, fewer again after a new start. A machine
        that dies under way is made up for here. Raises `BottleneckError`.
        """


class Readers(Protocol):
    """Processes somewhere that read files, made from a `WorkerConfig`.

    Entered, they can be asked; left, what was asked of them is forgotten.

    Attributes
    ----------
    room : int
        So many calls at once keep all of them busy.
    """

    room: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Have one of them call `work`, which travels by pickle; again elsewhere where that process dies.

        The future raises `EngineError` where that does not help.
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
