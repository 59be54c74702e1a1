"""Imports point one way: a table says what each part may import, and which doors libraries come through."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "bottleneck"

#: Part -> the parts it may import. A part is a folder or a module at the top. No circles: see the test.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "catalog": {"errors"},
    "schema": {"errors"},
    "contracts": {"schema"},
    "pixels": {"errors", "schema"},
    "system": {"errors", "schema"},
    "bases": {"catalog", "contracts", "errors", "pixels", "schema", "system"},
    "sources": {"catalog", "contracts", "errors", "schema", "system"},
    "store": {"errors", "schema", "system"},
    "forward": {"bases", "contracts", "errors", "pixels", "schema", "store", "system"},
    "heads": {"catalog", "errors", "schema", "store", "system"},
    "inventory": {"contracts", "errors", "pixels", "schema", "sources", "system"},
    "evaluation": {"errors", "heads", "schema", "store", "system"},
    "extraction": {
        "bases",
        "catalog",
        "contracts",
        "errors",
        "forward",
        "inventory",
        "pixels",
        "schema",
        "store",
        "system",
    },
    "runs": {"bases", "contracts", "errors", "evaluation", "heads", "schema", "sources", "store", "system"},
    "models": {"bases", "contracts", "errors", "forward", "pixels", "runs", "schema", "store"},
    "exports": {
        "bases",
        "catalog",
        "contracts",
        "errors",
        "inventory",
        "models",
        "pixels",
        "runs",
        "schema",
        "store",
        "system",
    },
    "finetuning": {"bases", "contracts", "errors", "heads", "models", "schema", "store", "system"},
    "pipeline": {
        "bases",
        "catalog",
        "contracts",
        "errors",
        "evaluation",
        "exports",
        "extraction",
        "finetuning",
        "forward",
        "heads",
        "inventory",
        "models",
        "pixels",
        "runs",
        "schema",
        "sources",
        "store",
        "system",
    },
    "__init__": {"errors", "heads", "pipeline"},
    "cli": {"errors", "evaluation", "exports", "extraction", "pipeline", "schema", "store", "system"},
    "__main__": {"cli"},
}

#: Library -> where it may be imported. Heavy ones and those that touch formats have few doors.
DOORS: dict[str, set[str]] = {
    "h5py": {
        "bases/weight_copy.py",
        "bases/weights.py",
        "store/maintenance/structure.py",
        "store/shard.py",
        "system/hdf5_child.py",
    },
    "tqdm": {"system/progress.py"},
    "click": {
        "cli/__init__.py",
        "cli/commands.py",
        "cli/finetune.py",
        "cli/options.py",
        "cli/output.py",
        "cli/store.py",
    },
    "rich": {
        "cli/output.py",
        "cli/tables/common.py",
        "cli/tables/exports.py",
        "cli/tables/extraction.py",
        "cli/tables/finetune.py",
        "cli/tables/stores.py",
        "cli/tables/training.py",
    },
    "fsspec": {"system/connections.py"},
    "aiohttp": {"system/web_client.py"},
    "jinja2": {"exports/card.py"},
    "tf2onnx": {"exports/onnx_file.py"},
    "onnx": set(),
    "onnxruntime": {"exports/readers/onnx_file.py"},
    "openvino": {"exports/openvino_file.py", "exports/readers/openvino_file.py"},
    "pandas": set(),
    "distributed": {"extraction/engines/dask_engine.py"},
    "dask": set(),
    "ray": {"extraction/engines/ray_engine.py"},
    "pickle": {"extraction/worker/channel.py", "extraction/worker/main.py"},
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Modules that `path` imports, and whether at its top level (and not for type checkers alone)."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                visit(child, False)
            elif isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                for alias in child.names:
                    inner = f"{child.module}.{alias.name}"
                    exists = (ROOT.parent / inner.replace(".", "/")).with_suffix(".py").exists()
                    package = (ROOT.parent / inner.replace(".", "/")).is_dir()
                    found.append((inner if exists or package else str(child.module), top))
            else:
                visit(child, top and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_each_part_imports_what_it_may(path: Path) -> None:
    own = part_of(path)
    for name, _ in imports(path):
        if name.split(".")[0] == "bottleneck":
            parts = name.split(".")
            other = parts[1] if len(parts) > 1 else "__init__"
            if other in (own, "__init__"):
                continue
            assert other in MAY_IMPORT[own], f"{path.name} ({own}) imports {name}"


def test_the_table_has_no_circles_and_no_strangers() -> None:
    assert {part_of(p) for p in modules()} == set(MAY_IMPORT)
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        free = {part for part, needs in MAY_IMPORT.items() if part not in done and needs <= done}
        assert free, f"a circle among {sorted(set(MAY_IMPORT) - done)}"
        done |= free


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_come_through_their_doors(path: Path) -> None:
    here = str(path.relative_to(ROOT))
    for name, _ in imports(path):
        library = name.split(".")[0]
        assert library not in DOORS or here in DOORS[library], f"{here} imports {library}"


def test_the_table_names_no_part_twice_and_no_needless_right() -> None:
    """A right that nobody uses is a door left open."""
    used: dict[str, set[str]] = {part: set() for part in MAY_IMPORT}
    for path in modules():
        for name, _ in imports(path):
            parts = name.split(".")
            if parts[0] == "bottleneck" and len(parts) > 1 and parts[1] != part_of(path):
                used[part_of(path)].add(parts[1])
    unused = {part: sorted(rights - used[part]) for part, rights in MAY_IMPORT.items() if rights - used[part]}
    assert not unused


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("bottleneck", set()),
        ("bottleneck.catalog", set()),
        ("bottleneck.schema", set()),
        ("bottleneck.cli", set()),
        ("bottleneck.bases.digest_cache", set()),
        ("bottleneck.bases.applications", set()),
        ("bottleneck.store.read", {"h5py"}),
        ("bottleneck.extraction.run", set()),
        ("bottleneck.pipeline.export", set()),
    ],
)
def test_heavy_imports_stay_out_of_light_places(module: str, allowed: set[str]) -> None:
    heavy = {"tensorflow", "keras", "sklearn", "h5py", "scipy"} - allowed
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_page_on_architecture_has_this_table() -> None:
    page = (ROOT.parent / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)(?:/|\.py)` \| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE)
    shown = {part: set(rights.split(", ")) - {"nothing"} for part, rights in rows}
    assert shown == MAY_IMPORT, "docs/architecture.md has another table"


def test_the_root_has_few_modules() -> None:
    """A newcomer reads the rooms first: what is not a room needs a reason to lie beside them."""
    assert len(list(ROOT.glob("*.py"))) <= 8


def test_files_keep_to_one_subject() -> None:
    """A long file has two subjects; a tiny one is half of one."""
    lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in modules()}
    assert not {name: count for name, count in lines.items() if count > 320}, "split these by subject"
    # Python asks for these two names, however little they hold.
    small = {name for name, count in lines.items() if count < 25} - {"__main__.py"}
    assert {name for name in small if not name.endswith("__init__.py")} == set(), "merge these"


#: Public name -> why several rooms have it.
SHARED_NAMES: dict[str, str] = {
    "main": "Python's word for what a process starts with",
    **dict.fromkeys(
        [
            "compact",
            "copy",
            "evaluate",
            "export",
            "extract",
            "features",
            "finetune",
            "merge",
            "predict",
            "prune",
            "train",
            "verify",
        ],
        "a verb: the command of `cli` calls the function of `pipeline`",
    ),
}


def test_a_public_name_has_one_room() -> None:
    homes: dict[str, set[str]] = {}
    for path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                homes.setdefault(node.name, set()).add(part_of(path))
    shared = {name: sorted(parts) for name, parts in homes.items() if len(parts) > 1}
    verbs = {name for name in SHARED_NAMES if name != "main"}
    assert not {name: parts for name, parts in shared.items() if name not in SHARED_NAMES}
    assert all(shared[name] == ["cli", "pipeline"] for name in verbs & set(shared))
    assert set(SHARED_NAMES) <= set(shared), "an exception that nobody needs"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_docstrings_begin_with_a_short_line(path: Path) -> None:
    """Twelve words say what a thing does; the reason has a paragraph of its own."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    firsts = {
        getattr(node, "name", "the module"): text.splitlines()[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds) and (text := ast.get_docstring(node))
    }
    assert not {name: first for name, first in firsts.items() if len(first.split()) > 12}
