"""A child that parses files of others is bounded, and never less than its parent was."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

_CHILD = """
import resource
from bottleneck.system import hdf5_child
kind = resource.RLIMIT_CPU
resource.setrlimit(kind, ({soft}, {hard}))
hdf5_child.limit_resources(1 << 30, 60)
print(*resource.getrlimit(kind), resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [(30, 100, "30 61 0"), (30, -1, "30 61 0"), (-1, -1, "60 61 0"), (20, 40, "20 40 0")],
)
def test_limits_only_become_less(soft: int, hard: int, expected: str) -> None:
    if resource.getrlimit(resource.RLIMIT_CPU)[1] != resource.RLIM_INFINITY:
        pytest.skip("the suite itself has a processor limit")
    code = _CHILD.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
