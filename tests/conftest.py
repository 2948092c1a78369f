"""What every test may rely on: no network, one thread a process, small data folders, fake distributions."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import tqdm.auto
from PIL import Image

from genaug.registry import GROUP, Registry

# Nothing above imports torch, a Hub client or albumentations, which read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
for _name in ("GENAUG_DEBUG", "GENAUG_DISABLE_PLUGINS", "GENAUG_STRICT_PLUGINS"):
    os.environ.pop(_name, None)

# tqdm's own lock is shared with forked children: one that a crash test kills in the wrong moment would take it along.
for _bar in (tqdm.tqdm, tqdm.auto.tqdm):
    _bar.set_lock(threading.RLock())
    _bar.monitor_interval = 0

# A shell without job control starts what runs in its background deaf to Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines under load are slow, never wrong; and a suite that draws other examples every day cannot be bisected.
hypothesis.settings.register_profile("genaug", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("genaug")


@pytest.fixture
def core_registry() -> Registry:
    """A registry of the core's own plugin and nothing else, whatever is installed."""
    return Registry([metadata.EntryPoint("core", "genaug.sources.plugin", GROUP)])


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes images and masks and returns their folder.

    It takes id -> mask (uint8 ``[H, W]``), and the names of the two folders; the images are plain gradients of the
    masks' sizes.
    """

    def write(masks: Mapping[str, np.ndarray], *, images: str = "images", labels: str = "masks") -> Path:
        for folder in (images, labels):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for sample_id, mask in masks.items():
            ramp = np.linspace(0, 255, mask.size, dtype=np.uint8).reshape(mask.shape)
            Image.fromarray(np.stack([ramp, ramp[::-1], mask], axis=2)).save(tmp_path / images / f"{sample_id}.png")
            Image.fromarray(mask).save(tmp_path / labels / f"{sample_id}.png")
        return tmp_path

    return write


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that puts a real distribution on ``sys.path``: modules, metadata, entry points."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def write(name: str, modules: Mapping[str, str], entry_points: Mapping[str, str], version: str = "1.0") -> None:
        for module, text in modules.items():
            (site / f"{module}.py").write_text(text, "utf-8")
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
        lines = [f"[{GROUP}]", *(f"{key} = {value}" for key, value in entry_points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")
        importlib.invalidate_caches()

    yield write
    for module in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(site))]:
        del sys.modules[module]
