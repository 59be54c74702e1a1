"""Housekeeping at random: commands of one cache beside each other, killed and paused, against a reference.

    python -m tests.faults.housekeeping --minutes 30 [--seed N] [--actors 3] [--keep-going]

Extractions, `store prune` of three kinds, `store compact`, `store copy` there and back, `store verify`, repairs and
readers run in random order, so many at a time, each a process forked from this one; some are killed with SIGKILL, some
stopped for a while, all are slowed at the system calls that a race needs. After each round everybody has ended, and
the stores are held to the reference: the rows of the images that every prune keeps must all be there, every row that
is served must be right, and `verify` must find nothing. Prints what it counted, and ends with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.errors import DamagedShard
from bottleneck.schema import Cache
from bottleneck.store.listing import list_store, store_folders
from bottleneck.store.maintenance.verify import verify_store
from bottleneck.store.read import open_store
from tests.fakes import base
from tests.faults.housekeeping_ground import Ground, keys_of, reference_rows
from tests.faults.slow_forks import command_work, in_a_fork, run_forked

#: A command that takes longer than this has a deadlock.
LONGEST = 600.0


#: How often each is drawn, where not once.
OFTEN = {"extract all": 5, "extract kept": 2, "prune": 4, "prune kept": 4, "compact": 5, "read": 3}
#: Not drawn where no damage was done: repairing reads and writes as the others do.
AFTER_DAMAGE = ("repair",)


@dataclass
class Counts:
    """What was seen."""

    rounds: int = 0
    kills: int = 0
    pauses: int = 0
    ran: collections.Counter[str] = field(default_factory=collections.Counter)
    told: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """For a program."""
        return {
            "rounds": self.rounds,
            "commands": sum(self.ran.values()),
            "kills": self.kills,
            "pauses": self.pauses,
            "ran": dict(sorted(self.ran.items())),
            "told": dict(sorted(self.told.items())),
            "faults": len(self.faults),
        }


class Housekeeping:
    """Rounds of commands beside each other.

    Parameters
    ----------
    ground : Ground
    seed : int
    actors : int
        How many commands run at a time.
    """

    def __init__(self, ground: Ground, seed: int, actors: int = 3) -> None:
        self.ground, self.counts = ground, Counts()
        self._draw, self._actors = random.Random(seed), actors
        self._commands = ground.commands()
        self._running: dict[int, tuple[str, Path, float]] = {}
        self._number, self._damaged = 0, False
        self.reference = in_a_fork(lambda: reference_rows(ground))
        self.kept = {key: self.reference[key] for key in in_a_fork(lambda: keys_of(ground.kept))}
        for name in ("extract all", "copy there"):
            self._begin(name)
            self._wait()

    def round(self, commands: int = 12, *, damage: bool = False) -> None:
        """So many commands, then a look at what they left."""
        self._damaged = damage
        if damage:
            _flip(self.ground.main, self._draw)
        names = [name for name in [*self._commands, "read"] if damage or name not in AFTER_DAMAGE]
        weights = [OFTEN.get(name, 1) for name in names]
        for name in self._draw.choices(names, weights, k=commands):
            while len(self._running) >= self._actors:
                self._disturb(damage)
            self._begin(name)
        while self._running:
            self._disturb(damage)
        self.counts.rounds += 1
        if damage:
            self._damaged = False
            self._begin("repair")
            self._wait()
        for cache in (self.ground.main, self.ground.other):
            for fault in in_a_fork(lambda cache=cache: list(self._look(cache))):
                self._blame(f"after the round, {cache.name}: {fault}")

    def _begin(self, name: str) -> None:
        self._number += 1
        seed, said = self._draw.randrange(1 << 30), self.ground.root / f"said-{self._number}"
        arguments = [] if name == "read" else [*self._commands[name](self._draw), "--json", "--quiet"]
        child = os.fork()
        if not child:
            run_forked(said, seed, self._read if name == "read" else command_work(arguments, seed))
        self.counts.ran[name] += 1
        self._running[child] = name, said, time.monotonic()

    def _disturb(self, damage: bool) -> None:
        """Let them run for a moment; then, at times, one is killed or held still."""
        time.sleep(self._draw.random() * 0.02)
        self._reap(damage)
        if not self._running:
            return
        victim = self._draw.choice(sorted(self._running))
        chance = self._draw.random()
        if chance < 0.008:
            os.kill(victim, signal.SIGKILL)
            self.counts.kills += 1
        elif chance < 0.016:
            os.kill(victim, signal.SIGSTOP)
            time.sleep(self._draw.random() * 0.2)
            os.kill(victim, signal.SIGCONT)
            self.counts.pauses += 1

    def _wait(self) -> None:
        while self._running:
            time.sleep(0.005)
            self._reap(False)

    def _reap(self, damage: bool) -> None:
        for child, (name, said, since) in list(self._running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                if time.monotonic() - since > LONGEST:
                    os.kill(child, signal.SIGKILL)
                    self._blame(f"{name}: took more than {LONGEST:g} s")
                continue
            del self._running[child]
            text = said.read_text(errors="replace") if said.exists() else ""
            said.unlink(missing_ok=True)
            if not os.WIFSIGNALED(status):
                self._judge(name, os.waitstatus_to_exitcode(status), text, damage)
            elif os.WTERMSIG(status) != signal.SIGKILL:  # the only one that is sent here and ends a process
                self._blame(f"{name}: died of signal {os.WTERMSIG(status)} {text[-600:]}")

    def _judge(self, name: str, status: int, text: str, damage: bool) -> None:
        """A command ended by itself: done, or a typed error that may be."""
        if "kept changing" in text:
            self._blame(f"{name}: a file nobody touched {text[-600:]}")
        elif "Traceback" in text or "No such file" in text:
            self._blame(f"{name}: raw {text[-1500:]}")
        elif status == 0:
            return
        elif damage or "removed while" in text or "removed since" in text:
            self.counts.told[f"{name}: {_kind(text)}"] += 1
        else:
            self._blame(f"{name}: ended with {status} {text[-1000:]}")

    def _blame(self, fault: str) -> None:
        self.counts.faults.append(fault)
        print("FAULT", fault.replace("\n", " | ")[:3000], flush=True)

    def _look(self, cache: Path) -> Iterator[str]:
        """What is wrong with a cache that nobody works at."""
        for folder in store_folders(Cache(cache)):
            for item in verify_store(folder).damaged:
                yield f"unsound: {item.name}: {item.why}"
        yield from self._served(cache)

    def _read(self) -> None:
        """A reader beside the others: all that is kept is there at every opening, but for what was damaged."""
        for _ in range(5):
            try:
                faults = list(self._served(self.ground.main))
            except DamagedShard:
                if self._damaged:
                    continue
                raise
            if self._damaged:
                faults = [fault for fault in faults if "WRONG" in fault]
            if faults:
                raise AssertionError("\n".join(faults))

    def _served(self, cache: Path) -> Iterator[str]:
        for _ in range(20):
            store = open_store(Cache(cache), base().spec)
            keys = store.index.keys
            try:
                rows = store.gather(store.find(keys))
                break
            except DamagedShard as error:
                if "removed since" not in str(error):
                    raise
        there = {key.tobytes(): row for key, row in zip(keys, rows, strict=True)}
        if store.damaged:
            yield f"damaged: {dict(store.damaged)}"
        lost = self.kept.keys() - there.keys()
        if lost:
            yield f"LOST {len(lost)} of {len(self.kept)} kept rows"
        for key, row in there.items():
            if key not in self.reference or not np.array_equal(row, self.reference[key]):
                yield f"WRONG row of {key.hex()[:16]}"


def _kind(text: str) -> str:
    with contextlib.suppress(ValueError, IndexError):
        document = json.loads(text.splitlines()[0])
        return str(document.get("kind", "damage told"))
    return "reader"


def _flip(cache: Path, draw: random.Random) -> None:
    """One byte of a shard's rows: which images they are of can still be told, so that all of it can be put right."""
    for folder in store_folders(Cache(cache)):
        listing = list_store(folder)
        record = draw.choice([record for record in listing.standing.values() if record.rows])
        data = bytearray((listing.shards / record.shard).read_bytes())
        data[record.features_offset + draw.randrange(record.rows * 4 * record.shape[0])] ^= (
            1 << draw.randrange(8)
        )
        (listing.shards / record.shard).write_bytes(bytes(data))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--actors", type=int, default=3)
    parser.add_argument("--keep-going", action="store_true")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="housekeeping-") as folder:
        run = Housekeeping(Ground.make(Path(folder)), options.seed, options.actors)
        said = time.monotonic()
        while time.monotonic() < until and (options.keep_going or not run.counts.faults):
            run.round(damage=run.counts.rounds % 5 == 4)
            if time.monotonic() - said > 30:
                said = time.monotonic()
                print(json.dumps(run.counts.document()), flush=True)
    print(json.dumps(run.counts.document(), indent=1))
    return 1 if run.counts.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
