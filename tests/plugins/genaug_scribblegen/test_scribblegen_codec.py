"""Hints: distinct colours, exact round trips, wrong resizing is seen."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F

from genaug import LabelSpace
from genaug.errors import ConfigError, SampleError
from genaug_diffusion.images import resize_mask
from genaug_scribblegen.codec import HintCodec, OneHotCodec, RgbCodec, make_codec


def bit_reversal(n: int) -> tuple[int, ...]:
    """VOC's palette, from its definition: bits 0, 3, 6 of an id are red's highest, and so on."""
    channels = [0, 0, 0]
    for place in range(8):
        channels[place % 3] += (n >> place & 1) << (7 - place // 3)
    return tuple(channels)


def test_the_palette_has_256_distinct_colours() -> None:
    codec = RgbCodec(range(255))
    hint = codec.encode(torch.arange(256).view(1, 16, 16)) * 255
    colors = [tuple(c) for c in hint.movedim(1, -1).reshape(-1, 3).round().int().tolist()]
    assert len(set(colors)) == 256
    assert colors == [bit_reversal(i) for i in range(256)]
    assert colors[0] == (0, 0, 0)
    assert colors[255] == (224, 224, 192)


@settings(max_examples=40, deadline=None)
@given(
    ids=st.sets(st.integers(0, 254), min_size=1, max_size=60),
    size=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 9),
    kind=st.sampled_from(["rgb", "onehot"]),
)
def test_ids_to_hints_and_back(ids: set[int], size: tuple[int, int, int], seed: int, kind: str) -> None:
    codec = make_codec(kind, LabelSpace({i: f"c{i}" for i in ids}))
    values = np.array([*ids, 255])
    masks = torch.from_numpy(np.random.default_rng(seed).choice(values, size).astype(np.uint8))
    hints = codec.encode(masks)
    assert hints.shape == (size[0], codec.channels, *size[1:])
    assert hints.dtype == torch.float32
    assert hints.min() >= 0
    assert hints.max() <= 1
    assert torch.equal(codec.decode(hints), masks.long())
    bigger = F.interpolate(hints, scale_factor=3, mode="nearest")
    assert torch.equal(codec.decode(bigger), masks.long().repeat_interleave(3, 1).repeat_interleave(3, 2))


def test_one_hot_is_the_obvious_loop_and_the_last_channel_is_unlabelled() -> None:
    codec = OneHotCodec([7, 2, 30])
    masks = torch.tensor([[[2, 7, 255], [30, 30, 8]]], dtype=torch.uint8)  # 8 is no class
    hints = codec.encode(masks)
    expected = torch.zeros(1, 4, 2, 3)
    for row in range(2):
        for column in range(3):
            where = {2: 0, 7: 1, 30: 2}.get(int(masks[0, row, column]), 3)
            expected[0, where, row, column] = 1
    assert torch.equal(hints, expected)
    assert torch.equal(codec.decode(hints), torch.tensor([[[2, 7, 255], [30, 30, 255]]]))


def test_more_classes_than_colours() -> None:
    with pytest.raises(ConfigError, match=r"300 classes with ids up to 1000 as colours.*onehot"):
        RgbCodec(range(300), 1000)
    codec = OneHotCodec(range(300), 1000)
    masks = torch.tensor([[[0, 299], [1000, 257]]])
    assert torch.equal(codec.decode(codec.encode(masks)), masks)
    with pytest.raises(ConfigError, match=r"ids in 0\.\.255"):
        RgbCodec([3], 256)


def test_unlabelled_has_the_colour_of_the_ignore_index() -> None:
    codec = make_codec("rgb", LabelSpace({0: "off", 255: "on"}, ignore_index=254))
    hints = codec.encode(torch.tensor([[[0, 255, 254, 9]]]))
    assert (hints[0, :, 0] * 255).round().int().T.tolist() == [
        [0, 0, 0], [224, 224, 192], [96, 224, 192], [96, 224, 192],
    ]  # fmt: skip
    assert codec.decode(hints).tolist() == [[[0, 255, 254, 254]]]


@pytest.mark.parametrize("codec", [RgbCodec([1, 4]), OneHotCodec([1, 4])])
def test_hints_that_were_blended_are_refused(codec: HintCodec) -> None:
    masks = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    masks[:, 3] = 4
    blended = F.interpolate(codec.encode(masks), (12, 12), mode="bilinear", align_corners=False)
    with pytest.raises(SampleError, match=r"pixels with .*nearest neighbour only"):
        codec.decode(blended)


def test_masks_are_resized_by_nearest_neighbour() -> None:
    mask = np.full((10, 14), 255, np.uint8)
    mask[4, :] = 9
    resized = resize_mask(mask, (40, 28)).numpy()
    assert set(np.unique(resized)) == {9, 255}
    assert (resized[16:20] == 9).all()
    assert np.array_equal(resize_mask(mask, (5, 7)).numpy(), mask[::2, ::2])
    assert (resize_mask(mask, (3, 7)).numpy() == 255).all()  # rows 0, 3 and 6: the stroke is lost
