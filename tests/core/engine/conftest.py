import sys
from pathlib import Path

import pytest

# The plugin that tests generate with; its metadata lies deeper, so that only processes started for it see it.
sys.path.insert(0, str(next(p for p in Path(__file__).parents if p.name == "tests") / "noise"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Root of an uninterrupted run of `FULL`."""
    from noise_helpers import FULL, go

    root = tmp_path_factory.mktemp("whole")
    go(root, **FULL)
    return root
