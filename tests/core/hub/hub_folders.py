"""Small folders to publish: an adapter of random weights, without torch; a store of noise."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

LABELS = {"names": {"1": "grass", "4": "road|way"}, "ignore_index": 255}


def weights(**changes: np.ndarray) -> bytes:
    rng = np.random.default_rng(0)
    tensors = {"a.lora_A.weight": rng.normal(size=(4, 600)), "a.lora_B.weight": rng.normal(size=(600, 4))}
    return save({name: value.astype(np.float32) for name, value in {**tensors, **changes}.items()})


def write_adapter(folder: Path, *, data: bytes | None = None, files: bool = True, **changes: Any) -> Path:
    """Write what ``genaug adapt`` leaves: the adapter, its card, pictures, and things that are nobody's business."""
    folder.mkdir(parents=True)
    data = weights() if data is None else data
    config = {
        "format": "lt-adapter/1",
        "method": "matchmask",
        "base": "some/base",
        "revision": "abc",
        "labels": LABELS,
        "weights_sha256": hashlib.sha256(data).hexdigest(),
        "training": {"samples": 12, "steps": 70, "final_loss": 0.25, "held_out_loss": None},
        **changes,
    }
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "adapter_model.safetensors").write_bytes(data)
    (folder / "genaug_config.json").write_text(json.dumps(config))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": config.get("base"), "r": 4}))
    base = config.get("base")
    (folder / "README.md").write_text(
        f"---\nlibrary_name: peft\nbase_model: {base}\ntags: [genaug, lora]\n---\n# For {base}\n\nWords.\n"
    )
    if files:
        (folder / "checkpoint.safetensors").write_bytes(b"the state of a training")
        (folder / "training.json").write_text("{}")
        (folder / "previews").mkdir()
        for step in (10, 70):
            Image.new("RGB", (6, 4), (step, 0, 0)).save(folder / f"previews/step_{step:06d}.png")
        Image.new("RGB", (6, 4)).save(folder / "losses.png")
    return folder


def write_store(root: Path, **changes: Any) -> Path:
    """Run the noise generator, and two filters, into ``root/out``."""
    from noise_helpers import FILTERS, go

    go(root, filters=FILTERS, **changes)
    return root / "out"


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
