"""Runs on the toy network, trained once for all files of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bottleneck
from tests.models.tiny_network import PREPROCESSING, run_in_process, save_network, write_patterns


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and the runs of a dense and a logistic head on the toy network."""
    folder = tmp_path_factory.mktemp("finetune")
    with pytest.MonkeyPatch.context() as patch:
        run_in_process(patch)
        patch.setenv("BOTTLENECK_CACHE", str(folder / "cache"))
        source, base = write_patterns(folder / "in", 14), save_network(folder)
        options: dict[str, Any] = {"preprocessing": PREPROCESSING, "pooling": "avg", "split": "exact"}
        dense = {"hidden": (8,), "batch_norm": True, "dropout": 0.2, "epochs": 8}
        options["cache"] = folder / "cache"
        bottleneck.train(source, str(base), "dense", run=folder / "dense", settings=dense, **options)
        bottleneck.train(source, str(base), "logistic", run=folder / "unwatched", validation=0.0, **options)
    return folder


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extract by the worker's own code in this process."""
    run_in_process(monkeypatch)
