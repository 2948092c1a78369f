import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genaug.errors import StoreError
from genaug.labels import LabelSpace
from genaug.report.classes import evenly
from genaug.report.collect import GroupSummary, Reasons, kept_share
from genaug.report.gallery import choose, percent
from genaug.report.pictures import SIDE, mask_picture, photo
from genaug.report.training import draw, find_trainings

LABELS = LabelSpace({0: "sky", 1: "road"})


# ---------------------------------------------------------------------- choosing


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(1, 30))
def test_the_choice_is_bounded_and_holds_both_ends(shares, limit):
    groups = [GroupSummary(f"g{i}", (f"g{i}_0",), share) for i, share in enumerate(shares)]
    parts = choose(groups, limit)
    shown = [group.id for part in parts for group in part.groups]
    assert len(shown) == len(set(shown)) == min(limit, len(groups))
    if len(groups) > limit >= 3:
        chosen = {g.id: g.share for part in parts for g in part.groups}
        assert min(shares) in chosen.values()
        assert max(shares) in chosen.values()
        assert parts[0].groups[0].share == min(shares)
        assert parts[-1].groups[0].share == max(shares)


def test_few_conditions_are_all_shown_in_their_order():
    groups = [GroupSummary(name, (), share) for name, share in (("z", 0.9), ("a", 0.1))]
    (part,) = choose(groups, 5)
    assert [g.id for g in part.groups] == ["z", "a"]
    assert choose([], 5) == []


@given(st.integers(0, 500), st.integers(1, 100))
def test_evenly_spread_numbers(count, wanted):
    numbers = evenly(count, wanted)
    assert len(numbers) == len(set(numbers)) == min(count, wanted)
    assert numbers == sorted(numbers)
    assert all(0 <= n < count for n in numbers)
    if wanted < count:
        gaps = np.diff(numbers)
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


# ---------------------------------------------------------------------- words and numbers


def test_reasons_keep_the_numbers_they_share():
    reasons = Reasons()
    for reason in ("12.5% of 4 images", "8% of 4 images", "class #3 is missing", "other", "other"):
        reasons.add(reason)
    assert reasons.table() == [
        {"reason": "#% of 4 images", "count": 2},
        {"reason": "other", "count": 2},
        {"reason": "class #3 is missing", "count": 1},
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0 %"), (1.0, "100 %"), (0.5, "50 %"), (0.042, "4.2 %"), (0.9996, "100.0 %"), (0.1, "10 %")],
)
def test_percent(value, text):
    assert percent(value) == text.replace(" ", "\u202f")


def test_kept_share():
    assert kept_share(0.0, 0.25) == 0.75
    assert kept_share(0.5, 0.75) == 0.5
    assert kept_share(1.0, 1.0) == 1.0


# ---------------------------------------------------------------------- pictures


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (64, 64), (96, 97), (192, 100), (193, 192), (1000, 30)])
def test_pictures_of_any_size_stay_small(size):
    mask = np.random.default_rng(0).integers(0, 2, size).astype(np.uint8)
    picture = mask_picture(mask, LABELS, mask == 1)
    shown = _pixels(picture)
    assert max(shown.shape[:2]) <= SIDE
    assert (picture.height, picture.width) == size
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert max(_pixels(photo(image)).shape[:2]) <= SIDE
    assert len(photo(image).uri) < 90_000


def test_a_small_mask_is_enlarged_by_a_whole_factor():
    mask = np.array([[0, 1], [1, 255]], np.uint8)
    shown = _pixels(mask_picture(mask, LABELS))
    np.testing.assert_array_equal(shown, LABELS.colorize(np.kron(mask, np.ones((96, 96), np.uint8))))


def test_a_mask_with_every_id_and_hatching_keeps_its_colours():
    labels = LabelSpace({i: str(i) for i in range(255)})
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    hatched = np.zeros((16, 16), bool)
    hatched[0, :2] = True
    shown = _pixels(mask_picture(mask, labels, hatched))
    np.testing.assert_array_equal(shown[12:, :], labels.colorize(np.kron(mask, np.ones((12, 12), np.uint8)))[12:, :])


def test_small_images_are_shown_exactly():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    assert photo(image).pixelated
    np.testing.assert_array_equal(_pixels(photo(image)), image)
    assert not photo(np.zeros((400, 300, 3), np.uint8)).pixelated


def _pixels(picture):
    import base64
    import io

    data = base64.b64decode(picture.uri.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# ---------------------------------------------------------------------- trainings


def test_losses_become_a_drawing():
    curve = draw({"losses": [float(v) for v in range(100, 0, -1)], "validation": [[50, 60.0], [100, 20.0]]})
    assert (curve.steps, curve.window) == (100, 2)
    assert curve.high == 99.5
    assert curve.low == curve.last == 1.5
    points = [tuple(map(float, p.split(","))) for p in curve.training.split()]
    assert points == sorted(points)  # falling losses: downwards from left to right
    assert len(curve.held_out.split()) == 2


@pytest.mark.parametrize("record", [{}, {"losses": [1.0]}, {"losses": [1.0, float("nan")]}])
def test_nothing_to_draw(record):
    assert draw(record) is None


def test_a_constant_loss_is_a_line():
    assert len(draw({"losses": [1.0] * 10}).training.split()) == 10


def test_trainings_are_found_in_a_store(tmp_path):
    assert find_trainings(tmp_path) == []
    previews = tmp_path / "adapter" / "previews"
    previews.mkdir(parents=True)
    for step in (100, 200, 300, 400, 500):
        Image.fromarray(np.full((10, 30, 3), step // 2, np.uint8)).save(previews / f"step_{step:06d}.png")
    (tmp_path / "adapter" / "training.json").write_text(json.dumps({"losses": [2.0, 1.0]}))
    (tmp_path / "adapters" / "small-unet-1").mkdir(parents=True)
    (training,) = find_trainings(tmp_path)
    assert training.name == "adapter"
    assert training.curve.steps == 2
    assert [title for title, _ in training.previews] == ["step 100", "step 300", "step 500"]
    (tmp_path / "adapter" / "training.json").write_text("{")
    with pytest.raises(StoreError, match=r"training\.json"):
        find_trainings(tmp_path)
    (previews / "step_000100.png").write_bytes(b"x")
    with pytest.raises(StoreError, match="step_000100"):
        find_trainings(tmp_path)
