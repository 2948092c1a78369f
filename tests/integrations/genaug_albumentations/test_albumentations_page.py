"""What the page shows: a script that is short, and a picture that its script still draws."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = next(p for p in Path(__file__).parents if p.name == "tests").parent
PAGE = ROOT / "docs/how-to/albumentations.md"


def test_the_training_script_is_short():
    scripts = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.M | re.S)
    (script,) = [code for code in scripts if "DataLoader(" in code]
    assert len(script.splitlines()) <= 40


def test_the_picture_is_drawn(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "docs/figures"))
    script = importlib.import_module("albumentations_transforms")
    script.main(["--out", str(tmp_path), "--steps=2", "--size=32"])
    pixels = np.asarray(Image.open(tmp_path / "albumentations.png").convert("RGB"))
    assert min(pixels.shape[:2]) > 500
    for part in (*np.array_split(pixels, 2, axis=0), *np.array_split(pixels, 5, axis=1)):
        assert part.std() > 20, "a part of the picture is blank"
    shown = PAGE.parent / "figures/albumentations.png"
    assert f"](figures/{shown.name})" in PAGE.read_text("utf-8")
    assert shown.stat().st_size < 150_000
