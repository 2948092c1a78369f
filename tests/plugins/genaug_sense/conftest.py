import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel walks its input in blocks; this makes small inputs span several."""
    from genaug_sense import kernel

    monkeypatch.setattr(kernel, "BLOCK", 1 << 9)
