"""Results for a program: JSON-able documents, one for each command."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottleneck.evaluation.metrics import Metrics, absent
from bottleneck.schema import BaseSpec

if TYPE_CHECKING:
    from bottleneck.exports.export import Exported
    from bottleneck.exports.merged_file import Delivery
    from bottleneck.extraction.forecast.estimate import Estimate
    from bottleneck.extraction.forecast.forecast import Prediction
    from bottleneck.extraction.report import Extraction
    from bottleneck.pipeline.demo import DemoResult
    from bottleneck.pipeline.finetune import FineTuned
    from bottleneck.pipeline.predict import Predictions
    from bottleneck.pipeline.train import Trained
    from bottleneck.store.join import Features


def base_document(base: BaseSpec) -> dict[str, Any]:
    """One base for a program."""
    return {
        "name": base.name,
        "size": base.size,
        "smallest": base.smallest,
        "preprocessing": base.preprocessing,
        "cut": base.cut,
        "cuts": {
            name: {"layer": cut.layer, "pooling": cut.pooling, "top": cut.top}
            for name, cut in base.cuts.items()
        },
        "feature": list(base.feature),
        "parameters": base.parameters,
        "blocks": base.blocks,
        "weights": base.weights,
    }


def extraction_document(done: Extraction) -> dict[str, Any]:
    """What an extraction did, for a program."""
    return {
        "images": done.images,
        "computed": done.computed,
        "reused": done.reused,
        "duplicates": done.duplicates,
        "rejected": done.rejected,
        "ignored": done.ignored,
        "rows": done.rows,
        "seconds": round(done.seconds, 3),
        "images_per_second": round(done.images_per_second, 2),
        "bottleneck_stage": done.bottleneck_stage,
        "stages": {stage: round(took, 3) for stage, took in done.clock.waited.items()},
        "stages_alone": {stage: round(rate, 2) for stage, rate in done.clock.alone.items()},
        "store": str(done.store),
        "base": done.spec.base,
        "cut": done.spec.cut,
        "shape": list(done.spec.shape),
        "recipe": done.spec.recipe.fingerprint,
        "rejections": [why.model_dump(mode="json") for why in done.rejections],
        "ignored_why": dict(done.ignored_why),
        "damaged": dict(done.damaged),
        "classes": {label: count._asdict() for label, count in done.classes.items()},
        "rounding": done.rounding.model_dump(mode="json") if done.rounding else None,
        "precision": done.spec.recipe.precision,
        "drift": done.drift.model_dump(mode="json", exclude={"format"}) if done.drift else None,
        "environments": done.environments,
        "policy": str(done.spec.views) if done.spec.views else None,
        "views": extraction_document(done.views) if done.views else None,
    }


def estimate_document(left: Estimate) -> dict[str, Any]:
    """What an extraction would do, for a program."""
    return {
        "images": left.images,
        "unreadable": left.unreadable,
        "reused": left.reused,
        "to_compute": left.to_compute,
        "retried": left.retried,
        "tasks": left.tasks,
        "bytes": left.bytes,
        "store": str(left.store),
        "base": left.spec.base,
        "cut": left.spec.cut,
        "shape": list(left.spec.shape),
        "recipe": left.spec.recipe.fingerprint,
        "views": estimate_document(left.views) if left.views else None,
        "prediction": _prediction(left.prediction) if left.prediction else None,
    }


def _prediction(told: Prediction) -> dict[str, Any]:
    return {
        "seconds": round(told.seconds, 1),
        "images_per_second": round(told.images_per_second, 2),
        "bytes": told.bytes,
        "bytes_by_dtype": dict(told.bytes_by_dtype),
        "sampled": told.sampled,
        "batch": told.batch,
        "bottleneck": told.bottleneck,
        "suggested": dataclasses.asdict(told.suggested),
    }


def features_document(rows: Features, out: Path, kind: str) -> dict[str, Any]:
    """What was taken out, for a program."""
    return {
        "rows": len(rows),
        "shape": list(rows.X.shape),
        "dtype": rows.X.dtype.name,
        "out": str(out),
        "format": kind,
        "recipe": rows.spec.recipe.fingerprint,
    }


def metrics_document(found: Mapping[str, Metrics]) -> dict[str, Any]:
    """Figures by split, for a program."""
    return {"metrics": {name: metrics.model_dump(mode="json") for name, metrics in found.items()}}


def training_document(done: Trained) -> dict[str, Any]:
    """What a training run found, for a program."""
    run = done.folder.run
    figures = done.folder.figures
    return {
        "run": str(done.folder.path),
        "head": run.head.model_dump(mode="json"),
        "classes": list(run.classes),
        "counts": dict(done.counts),
        "split": run.split.model_dump(mode="json"),
        "classes_without_images": absent(done.metrics),
        **metrics_document(done.metrics),
        "folds": [m.model_dump(mode="json") for m in figures.folds],
        "fit": figures.fit and figures.fit.model_dump(mode="json"),
        "train_seconds": round(figures.seconds, 3),
        "advice": list(done.advice),
        "extraction": extraction_document(done.extraction),
    }


def tuning_document(done: FineTuned) -> dict[str, Any]:
    """What a fine-tuning did, for a program."""
    return {
        "run": str(done.folder.path),
        "kept": done.tuned.kept,
        "verdict": done.tuned.verdict,
        "measured": done.tuned.verdict != "unmeasured",
        "tuned": done.tuned.model_dump(mode="json"),
        "before": metrics_document(done.before)["metrics"],
        **metrics_document(done.metrics),
        "seconds": round(done.folder.figures.seconds, 3),
        "advice": list(done.advice),
    }


def predictions_document(found: Predictions) -> dict[str, Any]:
    """Predictions for a program."""
    return {
        "classes": list(found.classes),
        "predictions": [json.loads(line) for line in found.lines("jsonl")],
    }


def delivery_document(done: Delivery) -> dict[str, Any]:
    """What `merge` wrote, for a program."""
    return {
        "model": str(done.model),
        "parity": str(done.parity),
        "decode": str(done.decode),
        "bytes": done.size,
        "certificate": done.certificate.model_dump(mode="json"),
    }


def export_document(done: Exported) -> dict[str, Any]:
    """What `export` delivered and refused, for a program."""
    return {
        "folder": str(done.folder),
        "artefacts": [
            {**item.model_dump(mode="json"), "path": str(done.folder / item.path)}
            for item in done.manifest.artefacts
        ],
        "refused": [item.model_dump(mode="json") for item in done.manifest.refused],
        "left_out": list(done.left_out),
        "certificate": done.certificate.model_dump(mode="json"),
    }


def demo_document(done: DemoResult) -> dict[str, Any]:
    """The demo for a program."""
    return {
        "extraction": extraction_document(done.extraction),
        "heads": {name: training_document(trained) for name, trained in done.heads.items()},
        "best": done.best,
        "delivery": delivery_document(done.delivery),
        "seconds": round(done.seconds, 2),
    }
