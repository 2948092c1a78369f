"""Levels by epoch against the released rule; the same labels, workers, filters that drop some levels of an item."""

import copy
import math
import operator
import pickle
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from genaug_leveled import IMAGES, LEVELS, make_store
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Subset

from genaug.errors import ConfigError, StoreError
from genaug.store import SampleStore
from genaug_torch import EncodeRatioDataset, MixedDataset, StoreDataset, encode_ratio_at
from genaug_torch.encode_ratio import _nearest
from genaug_torch.workers import _transforms

# More workers than cores are slow, not wrong.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

name = operator.attrgetter("id")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def thinned(tmp_path_factory):
    """A store whose filter keeps about half of the samples."""
    return make_store(tmp_path_factory.mktemp("thinned"), below=127.6)


def kept(out):
    """Condition and number of the image -> level -> key, of what the filters keep; read from the manifest."""
    store = SampleStore.open(out)
    found = defaultdict(dict)
    for key in store.training_view().keys:
        row = store.row(key)
        found[row["id"], row["k"] % IMAGES][row["meta"]["encode_ratio"]] = key
    return dict(found)


# ---------------------------------------------------------------------- the schedule


def released(epoch):
    """The run scripts' curriculum: sets of ratio 0.5 to 1.0 that begin at epochs 0, 10, ... 50."""
    chosen = 0
    for place, begin in enumerate((0, 10, 20, 30, 40, 50)):
        if epoch >= begin:
            chosen = place
    return (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)[chosen]


def test_the_schedule_is_that_of_the_released_scripts():
    levels = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert [encode_ratio_at(e, levels) for e in range(80)] == [released(e) for e in range(80)]


@given(st.integers(1, 12), st.integers(1, 200))
def test_the_schedule_rises_from_the_first_level_to_the_last(count, epochs):
    levels = [(i + 1) / count for i in range(count)]
    found = [encode_ratio_at(e, levels, epochs) for e in range(epochs + 5)]
    assert found[0] == levels[0]
    assert found == sorted(found)
    assert found[epochs:] == [levels[-1]] * 5
    if epochs >= count:
        shares = Counter(found[:epochs])
        assert set(shares) == set(levels)
        assert max(shares.values()) - min(shares.values()) <= 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((-1, [0.5]), "epoch: -1"), ((0, []), "number of levels: 0"), ((0, [0.5], 0), "epochs: 0")],
)
def test_schedules_that_are_none(arguments, told):
    with pytest.raises(ConfigError, match=told):
        encode_ratio_at(*arguments)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8, unique=True), st.data())
def test_the_nearest_level_that_is_there(tenths, data):
    levels = [value / 20 for value in sorted(tenths)]
    there = data.draw(st.lists(st.booleans(), min_size=len(levels), max_size=len(levels)).filter(any))
    numbers = np.array([5 if flag else -1 for flag in there])
    found = _nearest(numbers, levels).tolist()
    assert found == sorted(found)  # so an item's ratio never falls either
    for column, chosen in enumerate(found):
        twentieths = [round(20 * level) for level in levels]
        near = [(abs(twentieths[i] - twentieths[column]), i) for i, flag in enumerate(there) if flag]
        assert chosen == min(near)[1]


# ---------------------------------------------------------------------- items


def test_an_item_keeps_its_label_and_changes_its_image(whole):
    dataset, everything = EncodeRatioDataset(whole, epochs=6), StoreDataset(whole)
    assert dataset.levels == LEVELS
    assert len(dataset) == 4 * IMAGES
    assert dataset.ids == tuple(f"m_{i}" for i in range(4) for _ in range(IMAGES))
    assert dataset.substituted == dict.fromkeys(LEVELS, 0)
    first = [dataset[i] for i in range(len(dataset))]
    for epoch in range(8):
        dataset.set_epoch(epoch)
        level = LEVELS.index(encode_ratio_at(epoch, LEVELS, 6))
        for index in range(len(dataset)):
            key = f"m_{index // IMAGES}_{level * IMAGES + index % IMAGES}"
            assert (dataset.key(index), dataset.level(index), dataset.sample(index).id) == (key, LEVELS[level], key)
            image, mask = dataset[index]
            assert torch.equal(image, everything[everything.keys.index(key)][0])
            assert torch.equal(mask, first[index][1])
            assert torch.equal(image, first[index][0]) == (level == 0)
    assert dataset.key(-1) == dataset.key(len(dataset) - 1)
    for index in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError, match=f"item {index} of 8"):
            dataset[index]


def test_levels_may_be_chosen(whole):
    dataset = EncodeRatioDataset(whole, levels=(0.5, 0.1 * 10), epochs=2)
    assert dataset.levels == (0.5, 1.0)
    found = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        found.append(dataset.level(3))
    assert found == [0.5, 1.0]


def test_a_fixed_ratio(whole, thinned):
    dataset = EncodeRatioDataset(whole, encode_ratio=0.7)
    for epoch in (0, 59):
        dataset.set_epoch(epoch)
        assert [dataset.key(i) for i in range(8)] == [f"m_{i // 2}_{2 + i % 2}" for i in range(8)]
    expected = {levels[0.7] for levels in kept(thinned).values() if 0.7 in levels}
    dataset = EncodeRatioDataset(thinned, encode_ratio=0.7)
    assert {dataset.key(i) for i in range(len(dataset))} == expected
    assert len(dataset) == len(expected) < 8


def test_random_ratios_are_drawn_for_every_item_and_epoch(whole):
    def draws(epochs, **options):
        dataset = EncodeRatioDataset(whole, encode_ratio="random", **options)
        result = []
        for epoch in epochs:
            dataset.set_epoch(epoch)
            result.append([dataset.level(i) for i in reversed(range(len(dataset)))][::-1])
        return result

    found = draws(range(100))
    assert draws([40]) == [found[40]]  # whatever was asked before
    assert draws(range(3), seed=1) != found[:3]
    counts = Counter(level for epoch in found for level in epoch)
    sigma = math.sqrt(800 * (1 / 3) * (2 / 3))
    assert all(abs(counts[level] - 800 / 3) < 4 * sigma for level in LEVELS)
    assert len({tuple(epoch) for epoch in found}) > 90


def test_filters_may_leave_an_item_other_levels(thinned):
    expected = kept(thinned)
    missing = {level: sum(level not in item for item in expected.values()) for level in LEVELS}
    assert sum(missing.values()) >= 3
    adaptive = EncodeRatioDataset(thinned, epochs=3)
    drawn = EncodeRatioDataset(thinned, epochs=3, encode_ratio="random")
    assert len(adaptive) == len(drawn) == len(expected)
    assert adaptive.substituted == missing
    items = sorted(expected)
    assert sorted(adaptive.ids) == [sample_id for sample_id, _ in items]
    for epoch, level in enumerate(LEVELS):
        adaptive.set_epoch(epoch)
        drawn.set_epoch(epoch)
        keys = set()
        for levels in expected.values():
            nearest = min(levels, key=lambda there: (round(abs(there - level), 6), there))
            keys.add(levels[nearest])
        assert {adaptive.key(i) for i in range(len(adaptive))} == keys
        for index in range(len(drawn)):
            (own,) = [item for item in expected.values() if drawn.key(index) in item.values()]
            assert adaptive.key(index) in own.values()  # the same item in both


def test_all_samples_whatever_the_filters_say(thinned):
    dataset = EncodeRatioDataset(thinned, view="all", targets="indices", transform=lambda s: (s.id, int(s.mask.max())))
    assert len(dataset) == 8
    assert dataset.ignore_index == 255
    assert dataset[0] == ("m_0_0", 255)


def test_a_refused_image_leaves_the_others_in_place(tmp_path):
    dataset = EncodeRatioDataset(make_store(tmp_path, refuse=["m_1_5"]), epochs=3)
    assert len(dataset) == 8
    assert dataset.substituted == {0.5: 0, 0.7: 0, 1.0: 1}
    dataset.set_epoch(2)
    assert [dataset.key(i) for i in (2, 3)] == ["m_1_4", "m_1_3"]


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epochs": 0}, "epochs: 0"),
        ({"encode_ratio": "rising"}, "encode_ratio: 'rising'. Allowed: 'adaptive', 'random', or a number"),
        ({"encode_ratio": True}, "encode_ratio: True"),
        ({"encode_ratio": 0.6}, r"encode_ratio: \[0.6\]. Allowed: what the store has: \[0.5, 0.7, 1.0\]"),
        ({"encode_ratio": 0.7, "levels": [0.7]}, "levels: given with a fixed encode_ratio"),
        ({"levels": [0.5, 0.6]}, r"levels: \[0.6\]"),
        ({"levels": [0.7, 0.5]}, "ascending"),
        ({"levels": [0.5, 0.5]}, "ascending"),
        ({"levels": []}, r"levels: \[\]"),
        ({"levels": [float("nan")]}, r"levels: \[nan\]"),
        ({"view": "some"}, "view: 'some'"),
    ],
)
def test_wrong_options(whole, options, told):
    with pytest.raises(ConfigError, match=told):
        EncodeRatioDataset(whole, **options)


def test_stores_without_encode_ratios(tmp_path):
    out = make_store(tmp_path / "a", ratios=(0.5, "half"))
    with pytest.raises(StoreError, match=r"sample m_0_2: encode ratio 'half'.*use StoreDataset"):
        EncodeRatioDataset(out)
    with pytest.raises(StoreError, match="no such folder"):
        EncodeRatioDataset(tmp_path / "b")


def test_a_level_of_which_nothing_is_kept(tmp_path):
    out = make_store(tmp_path)
    store = SampleStore.open(out)
    means = {row["key"]: row["meta"]["mean"] for row in store.rows()}
    high = sorted(means, key=means.get)[-2:]
    out = make_store(tmp_path / "strict", below=means[high[0]])
    there = sorted({SampleStore.open(out).row(key)["meta"]["encode_ratio"] for key in high})
    gone = [level for level in LEVELS if level not in there]
    with pytest.raises(StoreError, match=f"no sample to train with at encode ratio {', '.join(map(str, gone))}"):
        EncodeRatioDataset(out)
    assert len(EncodeRatioDataset(out, levels=there)) in {1, 2}
    with pytest.raises(StoreError, match="no sample to train with"):
        EncodeRatioDataset(out, encode_ratio=gone[0])


def test_negative_epochs(whole):
    with pytest.raises(ConfigError, match="epoch: -1"):
        EncodeRatioDataset(whole).set_epoch(-1)


# ---------------------------------------------------------------------- workers and mixtures


def loaded(dataset, told, epochs=3, **options):
    loader = DataLoader(dataset, batch_size=3, collate_fn=list, **options)
    result = []
    for epoch in range(epochs):
        told.set_epoch(epoch)
        result.append([item for batch in loader for item in batch])
    return result


@pytest.mark.parametrize("ratio", ["adaptive", "random"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 2, "multiprocessing_context": "fork"},
        {"num_workers": 3, "multiprocessing_context": "fork", "persistent_workers": True},
    ],
    ids=["fork", "persistent"],
)
def test_workers_follow_the_epochs(whole, ratio, options):
    dataset = EncodeRatioDataset(whole, epochs=3, encode_ratio=ratio, transform=name)
    found = loaded(dataset, dataset, **options)
    twin = EncodeRatioDataset(whole, epochs=3, encode_ratio=ratio, transform=name)
    assert found == loaded(twin, twin)
    assert found[0] != found[1] != found[2]


def test_spawned_workers_that_persist_follow_the_epochs_of_a_mixture(whole):
    def mixture():
        synthetic = EncodeRatioDataset(whole, epochs=3, transform=name)
        return MixedDataset(list("abcd"), synthetic, ratio=1, real_ids=[f"m_{i}" for i in range(4)])

    dataset, twin = mixture(), mixture()
    found = loaded(dataset, dataset, num_workers=1, multiprocessing_context="spawn", persistent_workers=True)
    assert found == loaded(twin, twin)
    levels = [{LEVELS[int(key.rpartition("_")[2]) // IMAGES] for key in epoch[4:]} for epoch in found]
    assert levels == [{0.5}, {0.7}, {1.0}]


def test_copies_have_epochs_of_their_own(whole):
    dataset = EncodeRatioDataset(whole, epochs=3)
    dataset.set_epoch(1)
    for twin in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert twin.epoch == 1
        twin.set_epoch(2)
        assert (twin.level(0), dataset.level(0)) == (1.0, 0.7)


@pytest.mark.parametrize(("scheme", "length"), [("append", 8), ("replace", 4), ("sample", 4)])
@pytest.mark.parametrize("ids", [None, [f"m_{i}" for i in range(4)]], ids=["any", "pairs"])
def test_every_scheme_switches_levels_and_keeps_its_length(whole, scheme, length, ids):
    synthetic = EncodeRatioDataset(whole, epochs=3, transform=name)
    dataset = MixedDataset(list("abcd"), synthetic, ratio=1.0, scheme=scheme, real_ids=ids)
    for epoch, level in enumerate(LEVELS):
        dataset.set_epoch(epoch)
        items = [dataset[i] for i in range(len(dataset))]
        assert len(items) == len(dataset) == length
        made = [item for item in items if len(item) > 1]
        assert len(made) == 4  # all of 'replace' and 'sample' at ratio 1: synthetic only
        assert {LEVELS[int(key.rpartition("_")[2]) // IMAGES] for key in made} == {level}


def test_wrapped_datasets_hear_of_the_epoch(whole):
    one, two, three = (EncodeRatioDataset(whole, epochs=3) for _ in range(3))
    mixed = MixedDataset(Subset(one, [0, 1]), ConcatDataset([two, Subset(three, [0])]), ratio=1)
    mixed.set_epoch(2)
    assert [dataset.level(0) for dataset in (one, two, three)] == [1.0] * 3


def test_seed_worker_finds_the_transform(whole):
    class Transform:
        def set_random_seed(self, seed):
            pass

        def __call__(self, sample):
            return sample.id

    transform = Transform()
    mixed = MixedDataset(["a"], EncodeRatioDataset(whole, transform=transform), ratio=1)
    assert list(_transforms(mixed, set())) == [transform]
