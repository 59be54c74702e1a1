"""kill -9 in the midst of fine-tuning: what was there stays, and the same call ends as an undisturbed run does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck import runs
from bottleneck.errors import TuningError, UsageError
from tests.models.tiny_network import PREPROCESSING, save_network, worker_here, write_patterns

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("worker_here")]
__all__ = ["worker_here"]

#: Two stages of three epochs of five steps; the process stops for good in the midst of the second stage's second epoch.
OPTIONS = "epochs=3, rate=3e-3, batch_size=8, patience=None, optimizer='adam', schedule='plateau', plateau_patience=1"
STAGES = ["top:1", "top:2"]
STOPS_AT = 3 * 5 + 5 + 3

SCRIPT = """
import sys, time
from pathlib import Path
import pytest
import bottleneck
from bottleneck.finetuning.stage_training import StageProgram
from tests.models.tiny_network import run_in_process

run, new, stops_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
learn, steps = StageProgram.learn, 0

def learn_and_stop(self, *arguments):
    global steps
    steps += 1
    if steps == stops_at:
        (new.parent / "stopped").touch()
        time.sleep(600)
    return learn(self, *arguments)

StageProgram.learn = learn_and_stop
run_in_process(pytest.MonkeyPatch())
bottleneck.finetune(run, {stages}, to=new, {options})
"""


def killed(run: Path, new: Path) -> None:
    """A real process that fine-tunes, killed by SIGKILL at a known step."""
    script = SCRIPT.replace("{stages}", repr(STAGES)).replace("{options}", OPTIONS)
    root = str(Path(__file__).parent.parent.parent)
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(run), str(new), str(STOPS_AT)],
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(2400):
            if (new.parent / "stopped").exists():
                break
            assert child.poll() is None, "it should not have ended by itself"
            time.sleep(0.05)
        # While it lives, nobody else may go on from its checkpoints.
        with pytest.raises(UsageError, match="another process fine-tunes into this folder"):
            bottleneck.finetune(run, STAGES, to=new, **eval(f"dict({OPTIONS})"))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


@pytest.mark.fault(79)
def test_a_killed_fine_tuning_goes_on_and_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    import keras

    options = eval(f"dict({OPTIONS})")
    source, base = write_patterns(tmp_path / "in", 16), save_network(tmp_path)
    settings = {"hidden": (8,), "dropout": 0.3, "epochs": 5}
    bottleneck.train(
        source, str(base), "dense", run=tmp_path / "run", settings=settings, preprocessing=PREPROCESSING,
        pooling="avg", split="exact",
    )  # fmt: skip
    # What was fine-tuned there before stays whole until the new one is done.
    older = bottleneck.finetune(tmp_path / "run", "top:1", to=tmp_path / "new", epochs=1, rate=1e-2)
    killed(tmp_path / "run", tmp_path / "new")
    assert runs.read_run(tmp_path / "new").run == older.folder.run
    assert bottleneck.evaluate(tmp_path / "new") == older.metrics

    said: list[str] = []
    resumed = bottleneck.finetune(
        tmp_path / "run", STAGES, to=tmp_path / "new", on_message=said.append, **options
    )
    assert "going on after epoch 1 of --unfreeze top:2" in said
    straight = bottleneck.finetune(tmp_path / "run", STAGES, to=tmp_path / "straight", **options)
    for one, other in zip(resumed.tuned.stages, straight.tuned.stages, strict=True):
        strip = [[{**entry, "seconds": 0.0} for entry in stage.history] for stage in (one, other)]
        assert strip[0] == strip[1] and one.best_epoch == other.best_epoch
    first, second = (
        keras.saving.load_model(done.folder.run.request.base).get_weights() for done in (resumed, straight)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    heads = [done.folder.head().arrays_ for done in (resumed, straight)]
    assert all(np.array_equal(heads[0][name], heads[1][name]) for name in heads[0])
    assert not list((tmp_path / "new").glob(".finetune.npz"))


def test_a_checkpoint_of_another_fine_tuning_is_not_gone_on_from_and_a_damaged_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bottleneck.finetuning.stage_training import StageProgram

    source, base = write_patterns(tmp_path / "in", 8), save_network(tmp_path)
    bottleneck.train(source, str(base), run=tmp_path / "run", preprocessing=PREPROCESSING, pooling="avg")
    learn, new = StageProgram.learn, tmp_path / "run-tuned"

    def interrupted(self: StageProgram, *arguments: object) -> np.ndarray:
        if (new / ".finetune.npz").stat().st_size and interrupted.__dict__.setdefault("left", 3) == 0:
            raise KeyboardInterrupt
        interrupted.__dict__["left"] -= 1
        return learn(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(StageProgram, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bottleneck.finetune(tmp_path / "run", "top:1", epochs=5, batch_size=8)
    point = (new / ".finetune.npz").read_bytes()
    said: list[str] = []
    bottleneck.finetune(tmp_path / "run", "top:1", epochs=1, batch_size=8, on_message=said.append)
    assert not any("going on" in text for text in said)
    (new / ".finetune.npz").write_bytes(point[: len(point) // 2])
    with pytest.raises(TuningError, match=r"\.finetune\.npz is no checkpoint.*remove it"):
        bottleneck.finetune(tmp_path / "run", "top:1", epochs=1)
