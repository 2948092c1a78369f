import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genaug.recipe import load_recipe

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def picture():
    """A function that saves an array as PNG (or what the ending says), with its folders."""

    def save(path, array, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path, **options)

    return save


@pytest.fixture
def source(tmp_path):
    """A function that returns the source a recipe names; the class table is ``{id: name}`` or a set's name."""

    def build(labels, **data):
        return load_recipe({"labels": labels, "data": data}, root=tmp_path).source()

    return build


@pytest.fixture
def write_json():
    def write(path, value):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), "utf-8")

    return write
