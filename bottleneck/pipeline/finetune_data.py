"""The images of a run as a fine-tuning takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck import runs
from bottleneck.errors import Rejected, TuningError
from bottleneck.inventory.checks import not_validated
from bottleneck.pipeline.extract import extract_missing, join_views
from bottleneck.pipeline.session import Request, Session, parse_views
from bottleneck.schema import BaseRequest, Recipe, TuneSettings
from bottleneck.store.join import Features
from bottleneck.store.views import view_keys
from bottleneck.system.durable import shown

if TYPE_CHECKING:
    from bottleneck.bases.load import LoadedBase
    from bottleneck.contracts import Source
    from bottleneck.finetuning.feeds import Feed
    from bottleneck.finetuning.run import Fed, Stage, TuningOutcome
    from bottleneck.forward.keras_forward import KerasForward
    from bottleneck.store.read import Store

#: Images on which two ways to the same rows are compared.
_CHECKED = 8

#: Share of their spread by which rows may differ that were computed in two ways. Rows of a store come from a frozen
#: graph, in which BatchNorm is folded: a tuned InceptionV3 was 1.2e-4 away from Keras' own; another network is by ones.
_TOLERANCE: Mapping[str, float] = {"float32": 1e-3, "float16": 5e-3}
_REDUCED_TOLERANCE = 0.5


def _tolerance(recipe: Recipe) -> float:
    return _TOLERANCE[recipe.dtype] if recipe.precision == "float32" else _REDUCED_TOLERANCE


class TuningData:
    """The images of a run by split, as rows or as pixels.

    Parameters
    ----------
    folder : RunFolder
    base : LoadedBase
        As loaded, before anything trains.
    settings : TuneSettings
    session : Session
    on_message : callable
        Hears of images that are gone.

    Attributes
    ----------
    weights : numpy.ndarray or None
        (classes,) float32.
    remarks : tuple of str
    probe : tuple of numpy.ndarray
        Contents (m, 32) of some images, and what was last fed for them.
    """

    def __init__(
        self,
        folder: runs.RunFolder,
        base: LoadedBase,
        settings: TuneSettings,
        session: Session,
        on_message: Callable[[str], None],
    ) -> None:
        from bottleneck.heads.inputs import class_weights

        self._folder, self.run, self.inventory = folder, folder.run, folder.inventory()
        self._base, self._settings, self.on_message = base, settings, on_message
        self.session = session
        self.probe: tuple[np.ndarray, np.ndarray]
        known, codes, splits = self._coded(self.inventory.table)
        training = codes[known & (splits == "train")]
        classes = np.array(self.run.classes)
        self.weights = class_weights(settings.class_weight, classes, training)
        self.remarks: tuple[str, ...] = ()
        watched = codes[known & (splits == "validation")]
        blind = classes[np.setdiff1d(training, watched)].tolist()
        if not len(watched):
            self.remarks = (
                "no image is held out for validation: every epoch is run and the last one's weights are kept, and "
                "nothing says whether they are better or worse than the run before; train with --validation 0.2, or "
                "name validation images in the source, to have that measured",
            )
        elif blind:
            self.remarks = (
                f"{not_validated(blind, len(classes))}; the epoch that is kept is chosen by the others",
            )

    def _coded(self, table: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Say which images have a known class, with codes and splits."""
        place = {name: code for code, name in enumerate(self.run.classes)}
        codes = np.array([place.get(label, -1) for label in table.column("label").to_pylist()], np.int64)
        return codes >= 0, codes, np.array(table.column("split").to_pylist(), object)

    def feed(self, stage: Stage) -> Fed:
        """What `stage` trains on and is watched by."""
        from bottleneck.finetuning.run import Fed

        parts = self._rows(stage.prefix) if stage.prefix is not None else self._pixels()
        return Fed(*parts)

    # ------------------------------------------------------------------------------------------- cached rows

    def _rows(self, prefix: str) -> tuple[Feed, Feed | None]:
        from bottleneck.finetuning.feeds import StoredRows

        request = self.run.request.model_copy(
            update={"cut": prefix, "pooling": "none", "dtype": "float32", "precision": "float32"}
        )
        joined = self._joined(request)
        self._check_prefix(joined, prefix)
        known, codes, splits = self._coded(joined.table)

        learnt, held = known & (splits == "train"), known & (splits == "validation")
        training = joined.where(learnt).loaded()
        watched = replace(joined, views=None).where(held).loaded()
        rows = training.X if training.views is None else training.views.flat
        self.probe = training.keys[:_CHECKED], np.asarray(training.X[:_CHECKED])
        return (
            StoredRows(rows, codes[learnt], self._settings.views),
            StoredRows(watched.X, codes[held]) if held.any() else None,
        )

    def _joined(self, request: BaseRequest) -> Features:
        """Join the run's images with their rows under `request`."""
        views = (
            parse_views(self._settings.views, self._settings.augment) if self._settings.views > 1 else None
        )
        (done,), _ = extract_missing(self.source, Request((request,), views), self.session)
        rows = join_views(done.store, self.inventory, views, self.session.cache)
        lost = len(self.inventory) - len(rows)
        if lost:
            self.on_message(
                f"{lost:,} of the run's {len(self.inventory):,} images have no row at {request.cut} any more"
            )
        return rows

    def _check_prefix(self, joined: Features, prefix: str) -> None:
        """Check cached rows of a few images against this very base."""
        from bottleneck.bases.cut import cut_at
        from bottleneck.finetuning.run import check_rows

        model, _ = cut_at(self._base.model, prefix)
        below = replace(self._base, cut=prefix, model=model, pooling="none", spec=joined.spec)
        spread = np.linspace(0, len(joined) - 1, min(_CHECKED, len(joined)), dtype=int)
        wanted = {key.tobytes(): number for number, key in enumerate(self.inventory.keys)}
        pixels = np.stack([self._image(wanted[joined.keys[row].tobytes()], 0) for row in spread])
        check_rows(
            np.asarray(joined.X[spread]),
            np.asarray(below.features_model(pixels, training=False)),
            f"the cached rows of {prefix} and those of the base as it is now",
            _TOLERANCE["float32"],
        )

    def check_tuned(self, store: Store, outcome: TuningOutcome) -> None:
        """Check the saved base against the tail as it was trained."""
        from bottleneck.finetuning.run import check_rows

        keys, fed = self.probe
        there = store.find(keys)
        rows = store.gather(there[there >= 0])
        check_rows(
            rows,
            outcome.features(fed)[there >= 0],
            "features of the tuned base as it was saved and as it was trained",
            _tolerance(store.spec.recipe),
        )

    # ------------------------------------------------------------------------------------------------- pixels

    def _pixels(self) -> tuple[Feed, Feed | None]:
        from bottleneck.finetuning.feeds import DecodedImages

        known, codes, splits = self._coded(self.inventory.table)
        shape = (self._base.size, self._base.size, 3)

        def part(name: str) -> Feed:
            numbers = np.flatnonzero(known & (splits == name))
            return DecodedImages(lambda n, view: self._image(int(numbers[n]), view), codes[numbers], shape)

        training, watched = part("train"), part("validation")
        numbers = np.flatnonzero(known & (splits == "train"))[:_CHECKED]
        self.probe = self.inventory.keys[numbers], np.stack([self._image(int(n), 0) for n in numbers])
        return training, watched if len(watched.codes) else None

    @cached_property
    def _forward(self) -> KerasForward:
        from bottleneck.forward.keras_forward import KerasForward, batch_for

        # For its pixels alone.
        return KerasForward([self._base], batch_for(self.run.request, self.session.cache), "float32")

    @cached_property
    def source(self) -> Source:
        """The run's source, opened when it is first needed."""
        return self.session.open(self.run.source)

    @cached_property
    def _names(self) -> dict[bytes, bytes]:
        """Under which name each content lies in the source now."""
        return {image.content: image.path for image in self.session.scan(self.source)}

    def _image(self, number: int, view: int) -> np.ndarray:
        """Decode image `number` or a view of it, whatever its name now."""
        key = self.inventory.keys[number]
        path = self._names.get(key.tobytes(), self.inventory[number].path)
        try:
            data = self.source.read(path)
        except (OSError, Rejected) as error:
            raise TuningError(
                f"{shown(path)} cannot be read ({error}): fine-tuning needs the images"
            ) from error
        if hashlib.sha256(data).digest() != key.tobytes():
            raise TuningError(
                f"{shown(path)} is another picture than in run {self.run.name}: put the old one back, or train the "
                "run again"
            )
        pixels: np.ndarray = self._forward.decode(data)
        if view and self._settings.augment is not None:
            named = view_keys(key[None], view, view + 1).tobytes()
            pixels = self._forward.view(pixels, named, self._settings.augment)
        return pixels
