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


# ---------------------------------------------------------------------- pairs


class Named(list):
    """A list whose items were made from conditions of these ids."""

    def __init__(self, ids):
        self.ids = ids
        super().__init__((name, number) for number, name in enumerate(ids))


def paired(real, made, **options):
    return MixedDataset(real, Named(made), real_ids=real, **options)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 12),
    made=st.lists(st.integers(0, 14), max_size=40).map(lambda numbers: [f"id{i}" for i in numbers]),
    ratio=st.floats(0, 1),
    epoch=st.integers(0, 5),
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_pairs_are_of_one_id(scheme, n, made, ratio, epoch):
    real = [f"id{i}" for i in range(n)]
    q = len(set(real) & set(made))
    if made and not q:
        with pytest.raises(ConfigError, match=r"real_ids: none of 'id0'"):
            paired(real, made, ratio=ratio, scheme=scheme)
        return
    if not made:
        ratio = 0
    dataset = paired(real, made, ratio=ratio, scheme=scheme)
    dataset.set_epoch(epoch)
    found, extra = items(dataset), round(ratio * q)
    synthetic = [item for item in found if isinstance(item, tuple)]
    assert len(found) == len(dataset) == n + (extra if scheme == "append" else 0)
    assert all(made[number] == name for name, number in synthetic)
    if scheme != "sample":
        assert len(synthetic) == extra
        assert len({name for name, _ in synthetic}) == extra  # r <= 1: no label twice among them
    if scheme == "append":
        assert found[:n] == real
    if scheme == "replace":
        names = [item if isinstance(item, str) else item[0] for item in found]
        assert names == real  # everybody's place is its own
    if scheme == "sample" and ratio == 1:
        assert not any(isinstance(item, str) and item in made for item in found)


def test_append_gives_every_label_twice():
    """The paper's 2n items, whatever the number of synthetic images of a label."""
    real, made = list("abcde"), list("aaabcccdde")
    for found in epochs(paired(real, made, ratio=1), 20):
        assert sorted(name for name, _ in found[5:]) == real


def test_append_at_higher_ratios_takes_other_images_of_a_label_first():
    real, made = list("abc"), list("aaabbcb")
    for found in epochs(paired(real, made, ratio=3), 20):
        counts = Counter(found[3:])
        assert counts.total() == 9
        assert sorted(counts[item] for item in counts if item[0] in "ab") == [1] * 6
        assert counts["c", 5] == 3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_images_of_a_label_get_their_turn(scheme):
    dataset = paired(list("ab"), list("aaab"), ratio=1, scheme=scheme)
    counts = Counter(item for found in epochs(dataset, 300) for item in found if isinstance(item, tuple))
    expected = counts.total() / 2 / 3
    assert all(abs(counts["a", number] - expected) < 5 * math.sqrt(expected) for number in range(3))


def test_real_items_without_partner_stay():
    dataset = paired(list("abcd"), list("bb"), ratio=1, scheme="replace")
    assert all(found[0:1] + found[2:] == ["a", "c", "d"] and found[1][0] == "b" for found in epochs(dataset))
    assert len(paired(list("abcd"), list("bb"), ratio=1)) == 5


def test_sample_replaces_what_it_drew():
    n, ratio = 4000, 0.25
    real = [f"{i}" for i in range(n)]
    found = items(paired(real, real[: n // 2], ratio=ratio, scheme="sample"))
    share = sum(isinstance(item, tuple) for item in found) / n
    assert abs(share - ratio / 2) < 4 * math.sqrt(ratio / 2 / n)
    assert Counter(found).most_common(1)[0][1] > 1


@pytest.mark.parametrize(
    ("real_ids", "synthetic", "told"),
    [
        (["a"], Named("ab"), "real_ids: 1 ids for 2 real items"),
        (["a", "b"], ["x"], "synthetic: a list without 'ids'"),
        (["a", "b"], Named("wxyz"), r"none of 'a', 'b' is an id of the synthetic items, 'w', 'x', 'y' and 1 more"),
    ],
)
def test_wrong_pairs(real_ids, synthetic, told):
    with pytest.raises(ConfigError, match=told):
        MixedDataset(["p", "q"], synthetic, ratio=1, real_ids=real_ids)


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
