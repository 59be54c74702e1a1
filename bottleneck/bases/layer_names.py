"""Layer names that do not depend on what else this process has built.

Keras numbers unnamed layers through the whole process: the second InceptionV3 has `conv2d_94` where the first has
`conv2d`. A cut such as `activation_17` must mean one layer, so builders run with counters of their own.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fresh_names() -> Iterator[None]:
    """Unnamed layers made inside count from zero; the process's own counters go on afterwards."""
    if "keras" not in sys.modules:
        # Nothing has been named yet; and what is called inside may do without Keras altogether.
        yield
        return
    # Keras has no public way to set its name counters aside without clearing the whole session.
    from keras.src.backend.common import global_state

    kept = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", kept)
