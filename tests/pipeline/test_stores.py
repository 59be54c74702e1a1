"""`bottleneck store …` through the command line: what is said, what is done, and what is left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bottleneck.schema import Cache, RejectedContent
from bottleneck.store.commit import commit
from bottleneck.store.listing import list_store, store_folders
from tests.fakes import write_images
from tests.in_process import FAKE, Call
from tests.pipeline.store_checks import flip, served
from tests.store.maintenance.small_stores import snapshot


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    return write_images(tmp_path / "cats", {"cat": 9, "kitten": 9})


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    return write_images(tmp_path / "dogs", {"dog": 7, "puppy": 7}, seed=5)


@pytest.fixture
def folder(call: Call, cats: Path, dogs: Path, tmp_path: Path) -> Path:
    """A store of the fake base with two shards."""
    for source in (cats, dogs):
        assert call("extract", source, "--base", FAKE, "--quiet").status == 0
    (found,) = store_folders(Cache(tmp_path / "cache"))
    return found


def test_ls_and_show_say_what_there_is_and_write_nothing(call: Call, folder: Path) -> None:
    before = snapshot(folder.parents[1])
    (listed,) = call("store", "ls", "--json").json["stores"]
    assert listed["store"] == folder.name and listed["damaged"] == {}
    assert (listed["base"], listed["rows"], listed["shards"], listed["shape"]) == ("fake", 32, 2, [6])
    assert listed["bytes"] == sum(len(data) for data in snapshot(folder).values())
    table = call("store", "ls").out
    assert "fake" in table and listed["recipe"][:12] in table and "32" in table
    for name in (folder.name, folder.name[-12:], "fake-t"):
        shown = call("store", "show", name, "--json").json
        assert shown["store"] == folder.name and shown["request"]["base"] == FAKE
        assert sum(one["rows"] for one in shown["environments"]) == 32
    text = call("store", "show", "fake").out
    assert listed["recipe"] in text and str(folder) in text and "forward fake 1" in text
    assert call("store", "show", "fake", "--quiet").out == ""
    assert snapshot(folder.parents[1]) == before


def test_show_tells_who_is_given_up_from_who_is_tried_again(call: Call, folder: Path) -> None:
    listing = list_store(folder)
    record = next(iter(listing.standing.values()))
    final = RejectedContent(
        content="ab" * 32, stage="decode", reason="hung", retry=True, circumstances="c", final=True
    )
    once = final.model_copy(update={"content": "cd" * 32, "reason": "crashed", "final": False})
    commit(
        *(folder / "shards", "0" * 16, listing.header.spec),
        *(np.empty((0, 32), np.uint8), np.empty((0, 6), np.float32)),
        rejected=[final, once],
        environment=record.environment,
        canary=record.canary,
    )
    said = [line.split() for line in call("store", "show", "fake").out.splitlines()]
    given_up = said.index(["given", "up", "until", "limits", "or", "versions", "change", "1"])
    assert said[given_up + 1 : given_up + 4] == [
        ["abababababababab:", "decode:", "hung"],
        ["to", "be", "tried", "again", "1"],
        ["cdcdcdcdcdcdcdcd:", "decode:", "crashed"],
    ]


def test_an_empty_cache_has_no_stores(call: Call, tmp_path: Path) -> None:
    assert call("store", "ls", "--json").json == {"stores": []}
    assert "no stores yet" in call("store", "ls").out
    assert call("store", "verify", "--json").json == {"sound": True, "stores": []}
    assert not (tmp_path / "cache").exists()


def test_unknown_and_doubtful_names_are_refused_with_the_nearest(
    call: Call, folder: Path, cats: Path
) -> None:
    said = call("store", "show", "fake-topp-" + folder.name[-12:])
    assert said.status == 2 and f"nearest: {folder.name}" in said.err
    assert call("extract", cats, "--base", "tests.fakes:other_base", "--quiet").status == 0
    said = call("store", "verify", "fake")
    assert said.status == 2 and "may be 2 stores" in said.err
    assert call("store", "verify", folder.name[-12:], "--quiet").status == 0


def test_verify_finds_repair_mends_and_only_what_is_lost_is_computed(
    call: Call, folder: Path, cats: Path, dogs: Path
) -> None:
    whole = snapshot(folder / "shards")
    sound = call("store", "verify", "--json")
    assert sound.status == 0 and sound.json["sound"]
    (line,) = call("store", "verify", "--digest").out.splitlines()
    digest = sound.json["stores"][0]["digest"]
    assert line == f"{digest}  {folder.name}"
    name = flip(folder, 18)
    said = call("store", "verify", "--json")
    (found,) = said.json["stores"]
    assert said.status == 1 and not said.json["sound"]
    assert [(d["name"], d["rows"]) for d in found["damaged"]] == [(name, [0, 18])]
    text = call("store", "verify")
    assert text.status == 1 and name[:16] in text.out and "--repair SOURCE" in text.out
    quiet = call("store", "verify", "--quiet")
    assert (quiet.status, quiet.out) == (1, "") and f"damaged: {folder.name}" in quiet.err
    assert "the same command without --quiet says what" in quiet.err
    short = call("store", "verify", "--digest")
    assert short.status == 1 and f"damaged: {folder.name}" in short.err and "without --digest" in short.err
    mended = call("store", "verify", "--trust", "--repair", cats, "--json")
    assert mended.status == 0, mended.err
    (done,) = mended.json["stores"]
    assert (done["repair"]["recomputed"], done["repair"]["in_place"]) == (18, [name])
    assert done["digest"] == digest and snapshot(folder / "shards") == whole
    served(folder, cats)
    served(folder, dogs)


def test_a_repair_from_a_source_that_lacks_images_says_which_are_lost(
    call: Call, folder: Path, cats: Path, tmp_path: Path
) -> None:
    flip(folder, 18)
    for path in sorted((cats / "cat").iterdir())[:4]:
        path.unlink()
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    said = call("store", "verify", "--trust", "--repair", cats, "--quiet", "--cache", tmp_path / "copy")
    assert said.status == 1 and f"not sound: {folder.name}" in said.err
    said = call("store", "verify", "--trust", "--repair", cats, "--json")
    (done,) = said.json["stores"]
    assert said.status == 1 and len(done["repair"]["lost"]) == 4 and done["repair"]["recomputed"] == 14
    assert done["damaged"] == []
    served(folder, cats)
    assert call("store", "verify", "--quiet").status == 0


def test_a_lost_record_and_a_lost_shard_are_filled_from_the_source(
    call: Call, folder: Path, cats: Path, dogs: Path
) -> None:
    names = {record.rows: (name, record) for name, record in list_store(folder).standing.items()}
    (folder / "shards" / names[18][0]).write_bytes(b"{}")
    (folder / "shards" / names[14][1].shard).unlink()
    assert call("store", "verify", "--quiet").status == 1
    said = call("store", "verify", "--trust", "--repair", cats, "--json")
    (done,) = said.json["stores"]
    assert said.status == 1 and list(done["repair"]["left"]) == [names[14][0]]
    served(folder, cats)
    assert call("store", "verify", "--trust", "--repair", dogs, "--quiet").status == 0
    served(folder, cats)
    served(folder, dogs)


def test_a_sample_is_computed_again_and_told_from_other_rows(call: Call, folder: Path, cats: Path) -> None:
    said = call("store", "verify", "--trust", "--sample", 5, "--source", cats, "--seed", 1, "--json")
    assert said.status == 0, said.err
    sample = said.json["stores"][0]["sample"]
    assert sample == {"rows": 5, "exact": 5, "differing": [], "missing": {}, "largest": 0.0}
    # Rows that are well hashed and yet not the images': only computing can tell.
    from bottleneck.store.maintenance.shard_check import read_shard

    listing = list_store(folder)
    name, record = next((n, r) for n, r in listing.standing.items() if r.rows == 18)
    rows = read_shard(listing.shards, record)
    for path in (name, record.shard, record.blocks):
        (folder / "shards" / path).unlink()
    commit(
        *(
            folder / "shards",
            record.id,
            listing.header.spec,
            rows.keys.copy(),
            rows.features * np.float32(1.5),
        ),
        rejected=[],
        environment=record.environment,
        canary=record.canary,
    )
    assert call("store", "verify", "--quiet").status == 0
    said = call("store", "verify", "--trust", "--sample", 4, "--source", cats, "--json")
    assert said.status == 1 and len(said.json["stores"][0]["sample"]["differing"]) == 4
    assert call("store", "verify", "--trust", "--sample", 4).status == 2


def test_a_machine_that_computes_otherwise_is_told(call: Call, folder: Path, cats: Path) -> None:
    canary = np.frombuffer((folder / "canary.f32").read_bytes(), "<f4")
    (folder / "canary.f32").write_bytes((canary + 1).tobytes())
    said = call("store", "verify", "--trust", "--sample", 3, "--source", cats, "--json")
    (damage,) = said.json["stores"][0]["damaged"]
    assert said.status == 1 and damage["name"] == "canary.f32" and str(folder) in damage["why"]


def test_views_are_verified_sampled_repaired_and_pruned_by_their_images(
    call: Call, cats: Path, dogs: Path, tmp_path: Path
) -> None:
    for source in (cats, dogs):
        assert call("extract", source, "--base", FAKE, "--views", 3, "--quiet").status == 0
    plain, views = store_folders(Cache(tmp_path / "cache"))
    assert views.name.startswith(f"{plain.name}-views-")
    whole = snapshot(views / "shards")
    said = call("store", "verify", "--trust", "--sample", 5, "--source", cats, "--json")
    assert said.status == 0, said.err
    assert [store["sample"]["exact"] for store in said.json["stores"]] == [5, 5]
    name = flip(views, 36)
    said = call("store", "verify", "--trust", "--repair", cats, "--json")
    assert said.status == 0, said.err
    assert said.json["stores"][1]["repair"]["in_place"] == [name]
    assert snapshot(views / "shards") == whole
    assert call("store", "prune", "--keep", dogs, "--yes", "--quiet").status == 0
    assert [store["rows"] for store in call("store", "ls", "--json").json["stores"]] == [14, 28]
    assert call("extract", dogs, "--base", FAKE, "--views", 3, "--json").json["computed"] == 0
