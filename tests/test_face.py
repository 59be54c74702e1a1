"""The package's name is a trap: pandas imports whatever is called `bottleneck`. The face must be light and harmless."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bottleneck


def run(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True)


def test_the_face_is_pure_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import bottleneck\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names) - {'bottleneck'}))"
    )
    assert run(code).stdout.split() == []


def test_pandas_works_beside_us_with_exactly_one_warning() -> None:
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import bottleneck, pandas as pd\n"
        "    s = pd.Series([1.0, float('nan'), 3.0])\n"
        "    assert s.max() == 3.0 and s.sum() == 4.0\n"
        "    d = pd.DataFrame({'a': [1.0, 2.0, 6.0], 'b': [3.0, 4.0, 5.0]})\n"
        "    assert d.median().tolist() == [2.0, 4.0] and d.max().tolist() == [6.0, 5.0]\n"
        "print(*[f'{w.category.__name__}: {w.message}' for w in caught], sep='\\n')\n"
    )
    lines = [line for line in run(code).stdout.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("UserWarning: Pandas requires version")
    assert "'bottleneck'" in lines[0]


def test_the_version_is_literal_and_below_what_pandas_adopts() -> None:
    assert bottleneck.__version__.split(".")[0] == "0"


def test_no_name_of_the_other_package_is_ours() -> None:
    theirs = ("median", "push", "rankdata", "ss", "replace", "partition", "nansum", "nanmax", "move_mean")
    for name in theirs:
        with pytest.raises(AttributeError):
            getattr(bottleneck, name)
    assert not [n for n in dir(bottleneck) if n.startswith(("nan", "move_"))]


def test_every_name_of_the_face_is_there() -> None:
    for name in dir(bottleneck):
        assert getattr(bottleneck, name) is not None
    assert bottleneck.extract.__module__ == "bottleneck.pipeline.extract"


def test_a_name_is_the_same_after_its_stages_were_imported() -> None:
    code = (
        "import bottleneck, bottleneck.pipeline.export, bottleneck.exports.merged_file, "
        "bottleneck.pipeline.predict, bottleneck.cli\n"
        "import types\n"
        "bad = [n for n in dir(bottleneck) if n != '__version__'"
        " and isinstance(getattr(bottleneck, n), types.ModuleType)]\n"
        "print(*bad)"
    )
    assert run(code).stdout.split() == []
