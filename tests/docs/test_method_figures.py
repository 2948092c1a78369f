"""The script that draws the pictures of the method pages still runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
METHODS = ROOT / "docs/explanation/methods"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures_self_training", ROOT / "docs/figures/self_training.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_method_gets_its_picture(script: ModuleType, tmp_path: Path) -> None:
    few = {"steps": 2, "size": 32, "labelled": 4, "unlabelled": 2, "shown": 1, "seed": 3}
    script.main(["--out", str(tmp_path / "new"), *(f"--{name}={value}" for name, value in few.items())])
    pictures = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in pictures] == ["maskmatch.png", "sense.png", "upc.png"]
    for path in pictures:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert min(pixels.shape[:2]) > 500
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100, f"{path.name} is blank"
        for half in (*np.array_split(pixels, 2, axis=0), *np.array_split(pixels, 2, axis=1)):
            assert half.std() > 20, f"a half of {path.name} is blank"


def test_what_a_panel_claims_is_counted_right(script: ModuleType) -> None:
    flags = script.torch.zeros(4, 5, dtype=bool)
    assert script.share(flags) == "0 %"
    flags[0, 0] = True
    assert script.share(flags) == "5.0 %"
    assert script.share(flags, flags) == "100 %"
    assert script.share(~flags & flags, ~flags & flags) == "0 %"


def test_pages_show_pictures_of_a_size_that_loads_fast(script: ModuleType) -> None:
    for name in script.PICTURES:
        assert f"](figures/{name}.png)" in (METHODS / f"{name}.md").read_text("utf-8")
        assert (METHODS / f"figures/{name}.png").stat().st_size < 150_000
    assert list(script.COLOURS) == list(script.CLASSES.values())
