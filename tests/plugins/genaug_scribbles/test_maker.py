from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label

from genaug.config import validate
from genaug.errors import ConfigError
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext, load_recipe
from genaug.registry import Registry
from genaug.rng import Rng
from genaug.sources.base import Source
from genaug.types import Sample
from genaug_scribbles.config import MadeScribblesOptions
from genaug_scribbles.made import MadeScribbles
from genaug_scribbles.maker import make_scribbles

LABELS = LabelSpace({0: "ground", 1: "tree", 2: "car", 3: "sky"})


@st.composite
def masks(draw):
    """Blocks of four classes and 255: from single pixels to one region that fills the image."""
    height, width, block = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 12))
    rows, columns = -(-height // block), -(-width // block)
    ids = draw(st.lists(st.sampled_from([0, 1, 2, 3, 255]), min_size=rows * columns, max_size=rows * columns))
    blocks = np.array(ids, np.uint8).reshape(rows, columns)
    return np.kron(blocks, np.ones((block, block), np.uint8))[:height, :width].copy()


options = st.fixed_dictionaries(
    {
        "budget": st.sampled_from([0.001, 0.03, 0.2, 1.0]),
        "width": st.integers(1, 7),
        "strokes": st.integers(1, 4),
        "min_region": st.integers(1, 40),
        "shrink": st.floats(0, 0.99),
        "cut": st.floats(0, 0.49),
    }
)


@settings(max_examples=100)
@given(mask=masks(), how=options, seed=st.integers(0, 99))
def test_scribbles_never_contradict_the_mask_name_every_class_and_keep_the_budget(mask, how, seed):
    before = mask.copy()
    scribbles = make_scribbles(mask, ignore_index=255, rng=Rng(seed), **how)
    np.testing.assert_array_equal(mask, before)
    assert (scribbles.dtype, scribbles.shape) == (np.uint8, mask.shape)
    drawn = scribbles != 255
    np.testing.assert_array_equal(scribbles[drawn], mask[drawn])
    present = np.setdiff1d(mask, [255])
    np.testing.assert_array_equal(np.setdiff1d(scribbles, [255]), present)
    assert drawn.sum() <= max(int(how["budget"] * mask.size), len(present))
    again = make_scribbles(mask, ignore_index=255, rng=Rng(seed), **how)
    np.testing.assert_array_equal(again, scribbles)


@settings(max_examples=60)
@given(mask=masks(), how=options, seed=st.integers(0, 99))
def test_only_the_largest_regions_of_a_class_get_strokes(mask, how, seed):
    drawn = make_scribbles(mask, ignore_index=255, rng=Rng(seed), **how) != 255
    for class_id in np.setdiff1d(mask, [255]):
        regions = label(mask == class_id, connectivity=2)
        sizes = np.bincount(regions.ravel())[1:]
        inked = np.setdiff1d(regions[drawn], [0]) - 1
        assert len(inked) <= how["strokes"]
        left_out = np.setdiff1d(np.arange(len(sizes)), inked)
        assert sizes[inked].max() == sizes.max()
        assert (np.sort(sizes[inked])[:-1] >= how["min_region"]).all()
        assert len(left_out) == 0 or sizes[inked].min() >= sizes[left_out].max() or len(inked) == 1


def test_what_is_ignored_is_never_scribbled_on():
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = 7
    scribbles = make_scribbles(mask, ignore_index=7, rng=Rng(0))
    assert (scribbles[:, 30:] == 7).all()
    assert (scribbles[:, :30] == 0).any()
    blank = np.full((40, 60), 7, np.uint8)
    np.testing.assert_array_equal(make_scribbles(blank, ignore_index=7, rng=Rng(0)), blank)


def scene(size=128):
    """A sky over ground, with a house, a thin pole and a disc."""
    y, x = np.mgrid[:size, :size] / size
    mask = np.where(y < 0.5, 3, 0).astype(np.uint8)
    mask[(y > 0.3) & (y < 0.7) & (x > 0.1) & (x < 0.4)] = 2
    mask[(y > 0.1) & (y < 0.9) & (np.abs(x - 0.6) < 0.01)] = 1
    mask[(y - 0.6) ** 2 + (x - 0.8) ** 2 < 0.01] = 2
    return mask


def test_the_budget_is_used_up_where_there_is_room_for_it():
    for budget in (0.01, 0.02, 0.03):
        scribbles = make_scribbles(scene(), ignore_index=255, rng=Rng(0), budget=budget)
        assert 0.9 * budget < (scribbles != 255).mean() <= budget


def test_strokes_lie_in_the_middle_and_are_as_wide_as_asked():
    for width in (1, 3, 5):
        scribbles = make_scribbles(scene(), ignore_index=255, rng=Rng(0), width=width, budget=1.0, cut=0)
        pole = scribbles == 1
        assert pole.sum(axis=1).max() == min(width, 2 + (scene() == 1)[64].sum() % 2)  # the pole is 2 or 3 wide
        house = scribbles[39:90, 13:52] == 2  # its inner radius is 20 pixels, of which 6 are shrunk away
        assert house[4:-4, 4:-4].sum() == house.sum() > 20
        assert label(scribbles == 2, connectivity=2).max() == 2  # the house and the disc


def test_ends_are_cut_and_places_drawn_at_random_for_each_stream():
    seen = {make_scribbles(scene(), ignore_index=255, rng=Rng(seed), budget=0.01).tobytes() for seed in range(8)}
    assert len(seen) == 8
    whole = make_scribbles(scene(), ignore_index=255, rng=Rng(0), budget=1.0, cut=0) != 255
    cut = make_scribbles(scene(), ignore_index=255, rng=Rng(0), budget=1.0, cut=0.4) != 255
    assert 0.2 * whole.sum() < cut.sum() < whole.sum()
    assert whole[cut].mean() > 0.99


def test_a_square_and_a_ring_get_a_line_and_not_a_dot():
    square = np.zeros((64, 64), np.uint8)
    drawn = make_scribbles(square, ignore_index=255, rng=Rng(0), cut=0) == 0
    assert np.ptp(np.argwhere(drawn), axis=0).max() > 24
    y, x = np.mgrid[:64, :64] - 32
    ring = np.where((np.hypot(y, x) < 30) & (np.hypot(y, x) > 18), 1, 255).astype(np.uint8)
    drawn = make_scribbles(ring, ignore_index=255, rng=Rng(0), cut=0, budget=1.0) == 1
    assert label(drawn, connectivity=2).max() == 1
    assert (np.ptp(np.argwhere(drawn), axis=0) > 30).all()  # about half of it


# ---------------------------------------------------------------------- the source


class Given(Source):
    """Samples from memory; remembers what was asked of it."""

    def __init__(self, *samples):
        self.samples = {sample.id: sample for sample in samples}
        self.loaded = []

    def ids(self):
        return tuple(self.samples)

    def load(self, sample_id):
        self.loaded.append(sample_id)
        return self.samples[sample_id]


@lru_cache
def pictures(count=3):
    return tuple(
        Sample(f"s{n}", np.full((128, 128, 3), n, np.uint8), np.roll(scene(), 9 * n, axis=1), {"mask_file": "m.png"})
        for n in range(count)
    )


def made(*samples, **options):
    return MadeScribbles(Given(*samples), LABELS, MadeScribblesOptions(source={"masks": "m"}, **options))


def test_a_sample_depends_on_its_own_id_and_mask_alone():
    there, back = made(*pictures()), made(*reversed(pictures()))
    first = {sample.id: sample for sample in there}
    for sample in back:
        np.testing.assert_array_equal(sample.mask, first[sample.id].mask)
        np.testing.assert_array_equal(sample.image, first[sample.id].image)
        assert sample.meta == {"mask_file": "m.png", "mask": "scribbles"}
    same_mask = Sample("other", None, pictures()[0].mask)
    assert (made(same_mask).load("other").mask != first["s0"].mask).any()
    assert (made(*pictures(), seed=1).load("s0").mask != first["s0"].mask).any()
    expected = make_scribbles(pictures()[0].mask, ignore_index=255, rng=Rng(0).child("scribbles", "s0"))
    np.testing.assert_array_equal(first["s0"].mask, expected)


def test_the_survey_is_of_the_scribbles():
    only_sky = Sample("plain", None, np.full((40, 40), 3, np.uint8))
    source = made(*pictures(), only_sky, Sample("bare", np.zeros((5, 5, 3), np.uint8)))
    survey = source.survey()
    assert (survey.samples, survey.images, survey.masks, survey.problems) == (5, 4, 4, [])
    assert survey.is_sparse(255)
    scribbles = [sample.mask for sample in source if sample.mask is not None]
    for class_id in LABELS.ids:
        assert survey.pixels[class_id] == sum((mask == class_id).sum() for mask in scribbles)
        assert survey.strokes[class_id] == sum(label(mask == class_id, connectivity=2).max() for mask in scribbles)
    assert [str(note)[:42] for note in survey.notes] == ["scribbles of one class only: 1x: plain. Be"]
    assert survey.lost_strokes is None
    source.seen_at = lambda size: (size[0] // 8, size[1] // 8)
    small, expected = source.survey(), {}
    for sample in source:
        if sample.mask is not None:
            drawn, left = set(np.unique(sample.mask)), set(np.unique(sample.mask[::8, ::8]))
            expected |= {sample.id: tuple(sorted(drawn - left))} if drawn - left else {}
    assert small.lost == expected
    assert small.lost_strokes is not None
    assert 0 < small.lost_strokes.sum() < small.strokes.sum()
    assert len(small.notes) == 1 + bool(expected)


def test_a_set_that_cannot_be_read_is_told_as_the_wrapped_source_tells_it(write_pairs):
    root = write_pairs({"a": scene(32), "b": scene(32)})
    (root / "masks" / "b.png").write_bytes(b"torn")
    context = BuildContext(root, LABELS, Registry())
    options = {"source": {"images": "images", "masks": "masks"}}
    source = context.build("source", "scribbles", options, where="data")
    survey = source.survey()
    (problem,) = map(str, survey.problems)
    assert problem.startswith("the file cannot be read: 1x: masks/b.png")
    assert (survey.samples, survey.masks) == (2, 1)


def test_previews_ask_nothing_of_a_model_that_is_yet_to_learn():
    class Learning(Given):
        def outline(self, sample_id):
            return Sample(sample_id, self.samples[sample_id].image)

    source = MadeScribbles(Learning(*pictures()), LABELS, MadeScribblesOptions(source={}))
    assert source.outline("s0").mask is None
    assert source.survey().masks == 0
    assert source.source.loaded == ["s0", "s1", "s2"]  # by the wrapped source's own survey
    assert source.load("s0").meta["mask"] == "scribbles"


def test_a_recipe_names_the_masks_and_is_checked_down_to_them(write_pairs):
    root = write_pairs({"a": scene(32), "b": scene(32)})
    data = {"format": "scribbles", "source": {"format": "folder", "images": "images", "masks": "masks"}, "budget": 0.05}
    recipe = {"labels": dict(LABELS.names), "data": data}
    source = load_recipe(recipe, root=root).source()
    share = (source.load("a").mask != 255).mean()
    assert 0 < share <= 0.05
    assert (
        load_recipe(recipe, ["data.source.masks=images"], root=root).config.data.options["source"]["masks"] == "images"
    )
    wrong = {
        "data.budgit=1": "data.budgit: unknown key. Did you mean 'budget'",
        "data.budget=0": "data.budget: ",
        "data.cut=0.5": "data.cut: ",
        "data.width=0": "data.width: ",
        "data.source.maskz=x": "data.source.maskz: unknown key. Did you mean 'masks'",
        "data.source.format=foldr": "Did you mean 'folder'",
        "data.source=masks": "data.source: ",
    }
    for assignment, told in wrong.items():
        with pytest.raises((ConfigError, KeyError), match=told):
            load_recipe(recipe, [assignment], root=root)


def test_the_default_of_the_wrapped_source_is_a_folder():
    model = validate(MadeScribblesOptions, {"source": {"masks": "m"}}, where="data")
    assert model.source == {"format": "folder", "masks": "m"}


def test_scribbles_are_conditions_like_other_masks(write_pairs):
    root = write_pairs({"a": scene(32)})
    data = {"format": "scribbles", "source": {"images": "images", "masks": "masks"}}
    recipe = load_recipe({"labels": dict(LABELS.names), "data": data}, root=root)
    assert recipe.conditions().load("a").meta["mask"] == "scribbles"
