import sys
from pathlib import Path

import pytest

from genaug.errors import MissingDependencyError
from genaug_torch.libraries import load

# The plugin that tests generate with; its metadata lies deeper, so that only processes started for it see it.
sys.path.insert(0, str(next(p for p in Path(__file__).parents if p.name == "tests") / "noise"))


@pytest.fixture(params=["builtin", "albumentations", "torchvision", "kornia"])
def library(request):
    """Every library of image operations that is installed and can be imported."""
    if request.param != "builtin":
        try:
            load(request.param, where="test")
        except MissingDependencyError as error:
            pytest.skip(str(error))
    return request.param
