"""The small segmenter is deterministic, learns, takes any size and survives a round trip to disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from genaug.errors import AdapterError, StoreError
from genaug_tiny.scenes import CLASSES, render_scenes
from genaug_tiny.segmenter import SmallUNet, evaluate_miou, load, save, train_segmenter

torch.set_num_threads(1)
K = len(CLASSES)
Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def data() -> Pair:
    return render_scenes(range(6), size=32)


def train(data: Pair, **options: object) -> SmallUNet:
    settings: dict = {"num_classes": K, "steps": 4, "batch_size": 4, "seed": 1, "progress": False} | options
    return train_segmenter(*data, **settings)


def same(a: SmallUNet, b: SmallUNet) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_parameter_count() -> None:
    assert 0.3e6 < sum(p.numel() for p in SmallUNet(K).parameters()) < 0.5e6


@pytest.mark.parametrize("shape", [(64, 64), (33, 47), (8, 8), (5, 70)])
def test_any_size_gives_logits_of_that_size(shape: tuple[int, int]) -> None:
    model = SmallUNet(5, width=6).eval()
    assert model(torch.rand(2, 3, *shape)).shape == (2, 5, *shape)


def test_training_is_deterministic_and_leaves_the_global_stream_alone(data: Pair) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = train(data)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert same(first, train(data))
    assert not same(first, train(data, seed=2))


def test_it_learns(data: Pair) -> None:
    start, _ = evaluate_miou(train(data, steps=0), *data, K)
    end, per_class = evaluate_miou(train(data, steps=60, augment=False), *data, K)
    assert end > start + 0.15
    assert per_class.shape == (K,)


def test_samples_of_weight_zero_are_never_drawn(data: Pair) -> None:
    images, masks = data
    changed = images.copy()
    changed[3:] = 0
    weights = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert same(train((images, masks), sample_weights=weights), train((changed, masks), sample_weights=weights))


def test_ignored_pixels_teach_nothing(data: Pair) -> None:
    images, masks = data
    before = train(data, steps=0)
    after = train((images, np.full_like(masks, 255)), steps=2)
    assert torch.equal(before.head.weight, after.head.weight)


def test_miou_by_hand() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(images), 3, *images.shape[-2:])
            logits[:, 1] = 1
            return logits

    masks = np.array([[[0, 1], [1, 255]]], np.uint8)
    miou, iou = evaluate_miou(Fixed(), np.zeros((1, 2, 2, 3), np.uint8), masks, 3)
    assert iou[0] == 0
    assert iou[1] == pytest.approx(2 / 3)
    assert np.isnan(iou[2])
    assert miou == pytest.approx(1 / 3)


def test_save_and_load_are_bit_equal(data: Pair, tmp_path: Path) -> None:
    model = train(data)
    save(model, tmp_path / "segmenter")
    again = load(tmp_path / "segmenter")
    assert same(model, again)
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(x), again(x), atol=1e-5)  # memory layouts differ, weights do not
    with pytest.raises(AdapterError, match=r"no segmenter: segmenter\.json is missing"):
        load(tmp_path)


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("segmenter.safetensors", half), ("segmenter.safetensors", flip), ("segmenter.json", half)],
)
def test_damage_is_told(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    save(SmallUNet(3, width=4), tmp_path)
    damage(tmp_path / name)
    with pytest.raises(AdapterError, match=rf"{name}: damaged: .*trains it again"):
        load(tmp_path)


def test_a_segmenter_saved_before_there_was_a_hash_loads(tmp_path: Path) -> None:
    model = SmallUNet(3, width=4)
    save(model, tmp_path)
    (tmp_path / "segmenter.json").write_text('{"num_classes": 3, "width": 4}')
    assert same(model, load(tmp_path))
    half(tmp_path / "segmenter.safetensors")
    with pytest.raises(AdapterError, match="damaged: cannot be read"):
        load(tmp_path)
    (tmp_path / "segmenter.json").write_text('{"num_classes": 3}')
    with pytest.raises(AdapterError, match="damaged: no number of classes or width"):
        load(tmp_path)


@pytest.mark.parametrize("room", range(4))
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    torch.manual_seed(0)
    old, new = SmallUNet(3, width=4), SmallUNet(3, width=4)
    save(old, tmp_path)
    real, calls = os.fsync, list[int]()

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > room:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="the disk is full"):
            save(new, tmp_path)
    assert not list(tmp_path.glob(".tmp-*"))
    if (tmp_path / "segmenter.json").exists():  # never weights with another model's table
        assert same(new if room else old, load(tmp_path))
    save(new, tmp_path)
    assert same(new, load(tmp_path))


def test_bad_input_is_named(data: Pair) -> None:
    images, masks = data
    with pytest.raises(ValueError, match="uint8"):
        train((images.astype(np.float32), masks))
    with pytest.raises(ValueError, match="like the images"):
        train((images, masks[:, :5]))
    with pytest.raises(ValueError, match=r"\[99\]"):
        train((images, np.where(masks == masks.max(), 99, masks)))
    with pytest.raises(ValueError, match="sample_weights"):
        train(data, sample_weights=np.ones(2))
    with pytest.raises(ValueError, match="all zero"):
        train(data, sample_weights=np.zeros(6))
    with pytest.raises(ValueError, match="empty"):
        train((images[:0], masks[:0]))
    with pytest.raises(ValueError, match="2 classes"):
        SmallUNet(1)
