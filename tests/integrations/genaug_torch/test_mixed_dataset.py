import copy
import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset, Subset

from genaug.errors import ConfigError, StoreError
from genaug_torch import MixedDataset, seed_worker

# More workers than cores are slow, not wrong.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

REAL = [("real", i) for i in range(40)]
FAKE = [("fake", i) for i in range(15)]
SCHEMES = ("append", "replace", "sample")


def items(dataset):
    return [dataset[i] for i in range(len(dataset))]


def epochs(dataset, count=3):
    result = []
    for epoch in range(count):
        dataset.set_epoch(epoch)
        result.append(items(dataset))
    return result


# ---------------------------------------------------------------------- what an epoch holds


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 60), m=st.integers(1, 30), ratio=st.floats(0, 3), seed=st.integers(0, 5), epoch=st.integers(0, 9)
)
def test_append(n, m, ratio, seed, epoch):
    dataset = MixedDataset(range(n), range(1000, 1000 + m), ratio=ratio, scheme="append", seed=seed)
    dataset.set_epoch(epoch)
    found = items(dataset)
    extra = round(ratio * n)
    assert found[:n] == list(range(n))
    assert len(found) == len(dataset) == n + extra
    counts = Counter(found[n:])
    assert set(counts) <= set(range(1000, 1000 + m))
    assert all(extra // m <= counts[1000 + i] <= math.ceil(extra / m) for i in range(m))


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 60), m=st.integers(1, 30), ratio=st.floats(0, 1), seed=st.integers(0, 5), epoch=st.integers(0, 9)
)
def test_replace(n, m, ratio, seed, epoch):
    dataset = MixedDataset(range(n), range(1000, 1000 + m), ratio=ratio, scheme="replace", seed=seed)
    dataset.set_epoch(epoch)
    found = items(dataset)
    extra = round(ratio * n)
    assert len(found) == n
    assert all(item == place for place, item in enumerate(found) if item < 1000)
    counts = Counter(item for item in found if item >= 1000)
    assert counts.total() == extra
    assert all(extra // m <= counts[1000 + i] <= math.ceil(extra / m) for i in range(m))


def test_sample_has_the_asked_frequencies():
    n, m, ratio = 20_000, 10, 0.3
    found = items(MixedDataset(range(n), range(-m, 0), ratio=ratio, scheme="sample", seed=1))
    synthetic = [item for item in found if item < 0]
    sigma = math.sqrt(n * ratio * (1 - ratio))
    assert abs(len(synthetic) - n * ratio) < 4 * sigma
    expected = len(synthetic) / m
    assert all(abs(c - expected) < 5 * math.sqrt(expected) for c in Counter(synthetic).values())
    real = [item for item in found if item >= 0]
    # Drawn with replacement: of n items drawn (1 - r) n times, about n (1 - exp(-(1 - r))) different ones turn up.
    assert len(set(real)) == pytest.approx(n * (1 - math.exp(-(1 - ratio))), rel=0.03)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_epochs_differ_and_repeat(scheme):
    first, second, third = epochs(MixedDataset(REAL, FAKE, ratio=0.5, scheme=scheme, seed=7))
    assert first != second != third
    assert epochs(MixedDataset(REAL, FAKE, ratio=0.5, scheme=scheme, seed=7)) == [first, second, third]
    assert epochs(MixedDataset(REAL, FAKE, ratio=0.5, scheme=scheme, seed=8))[0] != first


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_ends_of_the_range(scheme):
    assert {name for name, _ in items(MixedDataset(REAL, [], ratio=0, scheme=scheme))} == {"real"}
    everything = items(MixedDataset(REAL, FAKE, ratio=1, scheme=scheme))
    assert {name for name, _ in everything} == ({"real", "fake"} if scheme == "append" else {"fake"})


def test_items_pass_untouched_whatever_they_are():
    item, other = {"image": torch.ones(2), "id": "x"}, object()
    dataset = MixedDataset([item], [other], ratio=1)
    assert dataset[0] is item
    assert dataset[1] is dataset[-1] is other
    assert dataset.locate(1) == ("synthetic", 0)
    for index in (2, -3):
        with pytest.raises(IndexError):
            dataset[index]


def test_global_randomness_is_neither_read_nor_moved():
    torch.manual_seed(0)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = epochs(MixedDataset(REAL, FAKE, ratio=0.5, scheme="sample"))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(1)
    assert epochs(MixedDataset(REAL, FAKE, ratio=0.5, scheme="sample")) == first


@pytest.mark.parametrize(
    ("ratio", "scheme", "text"),
    [
        (-0.1, "append", "ratio: -0.1.*a number from 0 with scheme 'append'"),
        (1.1, "replace", "from 0 to 1 with scheme 'replace'"),
        (1.1, "sample", "from 0 to 1"),
        (float("nan"), "append", "ratio: nan"),
        (float("inf"), "append", "ratio: inf"),
        (0.5, "mix", "scheme: 'mix'"),
    ],
)
def test_wrong_options(ratio, scheme, text):
    with pytest.raises(ConfigError, match=text):
        MixedDataset(REAL, FAKE, ratio=ratio, scheme=scheme)


def test_wrong_datasets():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(ConfigError, match="synthetic: a Stream"):
        MixedDataset(REAL, Stream(), ratio=1)
    with pytest.raises(ConfigError, match="no real samples"):
        MixedDataset([], FAKE, ratio=1)
    with pytest.raises(StoreError, match=r"no synthetic samples.*genaug run"):
        MixedDataset(REAL, [], ratio=1)
    with pytest.raises(ConfigError, match="epoch: -1"):
        MixedDataset(REAL, FAKE, ratio=1).set_epoch(-1)


# ---------------------------------------------------------------------- workers


def loaded(dataset, count=3, **options):
    loader = DataLoader(dataset, batch_size=4, collate_fn=list, **options)
    result = []
    for epoch in range(count):
        dataset.set_epoch(epoch)
        result.append([item for batch in loader for item in batch])
    return result


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"num_workers": 2, "multiprocessing_context": "fork"},
        {"num_workers": 6, "multiprocessing_context": "fork", "persistent_workers": True},
    ],
    ids=["none", "fork", "persistent"],
)
def test_draws_do_not_depend_on_workers(scheme, options):
    dataset = MixedDataset(REAL, FAKE, ratio=0.5, scheme=scheme, seed=3)
    assert loaded(dataset, **options) == epochs(MixedDataset(REAL, FAKE, ratio=0.5, scheme=scheme, seed=3))


def test_spawned_workers_that_persist_see_new_epochs():
    dataset = MixedDataset(REAL, FAKE, ratio=0.5, scheme="replace", seed=3)
    found = loaded(dataset, num_workers=2, multiprocessing_context="spawn", persistent_workers=True)
    assert found == epochs(MixedDataset(REAL, FAKE, ratio=0.5, scheme="replace", seed=3))


def test_a_copy_reaches_its_own_workers():
    original = MixedDataset(REAL, FAKE, ratio=0.5, scheme="replace", seed=3)
    expected = epochs(original)
    original.set_epoch(2)
    for twin in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert twin.epoch == 2
        found = loaded(twin, num_workers=1, multiprocessing_context="fork", persistent_workers=True)
        assert found == expected
        assert original.epoch == 2


# ---------------------------------------------------------------------- seed_worker


class Recorder:
    """A transform with a random stream of its own, as albumentations' are; as an item it shows its first numbers."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def set_random_seed(self, seed):
        self.generator = np.random.default_rng(seed)


class Drawing(torch.utils.data.Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.transform.generator.integers(2**40), np.random.randint(2**40)  # noqa: NPY002


def test_seed_worker_gives_every_worker_its_own_numbers():
    dataset = MixedDataset(REAL[:8], Subset(Drawing(Recorder()), range(8)), ratio=1, scheme="replace")

    def draw(seed, **options):
        torch.manual_seed(seed)
        loader = DataLoader(
            dataset, num_workers=2, batch_size=1, collate_fn=list, multiprocessing_context="fork", **options
        )
        return [batch[0] for batch in loader]

    plain = draw(0)
    assert len({own for own, _ in plain}) == 4  # what seed_worker is for: both workers draw the same
    found = draw(0, worker_init_fn=seed_worker)
    assert len({own for own, _ in found}) == len({shared for _, shared in found}) == 8
    assert draw(0, worker_init_fn=seed_worker) == found
    assert draw(1, worker_init_fn=seed_worker) != found


def test_seed_worker_belongs_into_a_worker():
    with pytest.raises(ConfigError, match="worker_init_fn=seed_worker"):
        seed_worker(0)
