"""The tests run on the real detectron2 and Mask2Former where they can be imported, else on the fakes in ``fake/``."""

from __future__ import annotations

import sys
import types
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for _name in ("detectron2", "mask2former"):
    if find_spec(_name) is None:
        sys.path.insert(0, str(HERE / "fake" / _name))
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[1] / "noise"))

# Compiled parts that are imported but not needed here: Mask2Former's deformable attention goes on in PyTorch where its
# own operator fails.
for _name in ("detectron2._C", "MultiScaleDeformableAttention"):
    try:
        import_module(_name)
    except ImportError:
        sys.modules[_name] = types.ModuleType(_name)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of the real ones' imports are not ours
    import detectron2_helpers
    import mask2former  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the real one's warnings pass; with the fake, every warning is an error as everywhere."""
    for item in items if hasattr(sys.modules["detectron2"], "__version__") else ():
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Registered datasets ``toy_train`` (4 images), ``toy_more`` (8) and ``toy_val`` (4) of 3 classes, 40 x 56."""
    return detectron2_helpers.register_toys(tmp_path_factory.mktemp("toys"))
