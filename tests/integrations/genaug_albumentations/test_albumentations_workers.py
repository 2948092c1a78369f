"""Random numbers in workers: all different, all repeatable, and with `TransformDataset` independent of workers."""

import albumentations as A
import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

import genaug_torch
from genaug.errors import ConfigError, SampleError
from genaug_albumentations import PatchMask, SyntheticSwap, TransformDataset, seed_sample, seed_worker

LABELS = {1: "grass", 4: "road", 7: "car"}
OLD = not hasattr(A.BasicTransform, "sample_parameters")
# More workers than cores are slow, not wrong.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
COUNT = 12


class Real(Dataset):
    """Items ``(image, mask)``, all alike."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return np.full((32, 32, 3), 200, np.uint8), np.full((32, 32), 1, np.uint8)


class Own(Dataset):
    """A user's dataset, whose pipeline has a name of its own."""

    def __init__(self, aug):
        self.stages = {"train": [aug]}

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        image, mask = Real()[0]
        return self.stages["train"][0](image=image, mask=mask)["image"]


def masking():
    return A.Compose([PatchMask(patch=4, p=1)])


def as_bytes(loader):
    return [np.ascontiguousarray(image).tobytes() for batch in loader for image in batch.numpy()]


def first(items):
    """The images of items; a collate function has to be importable where workers are spawned."""
    images = [item[0] if isinstance(item, tuple) else item for item in items]
    return torch.stack([torch.from_numpy(np.ascontiguousarray(image)) for image in images])


def loaded(dataset, workers, *, epoch=0, method=None, **more):
    dataset.set_epoch(epoch)
    return as_bytes(
        DataLoader(dataset, 2, num_workers=workers, multiprocessing_context=method, collate_fn=first, **more)
    )


def test_draws_depend_on_seed_epoch_and_id_alone():
    data = TransformDataset(Real(), masking(), seed=5)
    epochs = [loaded(data, 0, epoch=epoch) for epoch in (0, 1)]
    assert len({*epochs[0], *epochs[1]}) == 2 * COUNT
    assert [loaded(data, 2, epoch=epoch) for epoch in (0, 1)] == epochs
    assert loaded(TransformDataset(Real(), masking(), seed=5), 0) == epochs[0]
    assert not {*loaded(TransformDataset(Real(), masking(), seed=6), 0)} & {*epochs[0]}
    ids = [f"i{n}" for n in range(COUNT)]
    by_id = loaded(TransformDataset(Real(), masking(), ids=ids), 0)
    assert loaded(TransformDataset(Real(), masking(), ids=ids[::-1]), 0) == by_id[::-1]


def test_spawned_and_persistent_workers():
    """All at once and one worker alone, as it takes seconds to import torch and albumentations anew."""
    data = TransformDataset(Real(), masking(), seed=5)
    expected = [loaded(data, 0, epoch=epoch) for epoch in (0, 1)]
    loader = DataLoader(
        ConcatDataset([data, Own(masking())]),
        2,
        num_workers=1,
        multiprocessing_context="spawn",
        persistent_workers=True,
        collate_fn=first,
        worker_init_fn=seed_worker,
    )
    others = []
    for epoch in (0, 1):
        data.set_epoch(epoch)
        images = as_bytes(loader)
        assert images[:COUNT] == expected[epoch]
        others += images[COUNT:]
    assert len(set(others)) == 2 * COUNT


def test_albumentations_own_transforms_follow_as_well(mixed_store):
    """Probabilities too, and without one transform's decision being another's."""
    pipeline = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    image = np.arange(4, dtype=np.uint8).reshape(2, 2)[..., None].repeat(3, 2)
    table = np.zeros((2, 2), int)
    for number in range(400):
        seed_sample(pipeline, seed=0, sample_id=number, epoch=0)
        corner = int(pipeline(image=image)["image"][0, 0, 0])
        table[corner // 2, corner % 2] += 1
    assert (abs(table - 100) < 45).all()


@pytest.mark.parametrize("items", ["pairs", "tables"])
def test_items_keep_their_form_and_ids_reach_the_transform(mixed_store, picture, items):
    image, mask = picture
    item = (image, mask) if items == "pairs" else {"image": image, "mask": mask, "name": "x"}
    swap = A.Compose([SyntheticSwap(mixed_store, LABELS, p=1)])
    data = TransformDataset([item] * 3, swap, ids=["a", "b", "c"])
    for index, size in enumerate([(12, 16), (20, 18), (14, 6)]):
        out = data[index]
        if items == "pairs":
            assert out[0].shape == (*size, 3)
            assert out[1].shape == size
        else:
            assert set(out) == {"image", "mask", "name"}
            assert out["mask"].shape == size
    assert data[-1][0].shape == (14, 6, 3) if items == "pairs" else True
    with pytest.raises(IndexError):
        data[3]


def test_epochs_reach_what_is_wrapped():
    class Heard(Real):
        def set_epoch(self, epoch):
            self.epoch = epoch

    inner = Heard()
    TransformDataset(Subset(inner, range(4)), masking()).set_epoch(3)
    assert inner.epoch == 3
    with pytest.raises(ConfigError, match="epoch: -1"):
        TransformDataset(inner, masking()).set_epoch(-1)


def test_wrong_ids_and_items():
    for ids in (["a"], ["a"] * COUNT):
        with pytest.raises(ConfigError, match="different, for 12 items"):
            TransformDataset(Real(), masking(), ids=ids)
    with pytest.raises(SampleError, match="item 0 is a int"):
        TransformDataset([3], masking())[0]


# ---------------------------------------------------------------------- seed_worker


def epochs_of(dataset, seed, **more):
    torch.manual_seed(seed)
    loader = DataLoader(dataset, 2, num_workers=2, **more)
    return [as_bytes(loader) for _ in range(2)]


def test_seed_worker_makes_all_draws_differ_and_follows_torch():
    one = epochs_of(Own(masking()), 3, worker_init_fn=seed_worker)
    assert len({*one[0], *one[1]}) == 2 * COUNT
    assert epochs_of(Own(masking()), 3, worker_init_fn=seed_worker) == one
    assert epochs_of(Own(masking()), 4, worker_init_fn=seed_worker)[0] != one[0]


def test_seed_worker_reaches_pipelines_of_wrapped_datasets():
    data = Subset(Own(A.OneOf([PatchMask(patch=4)], p=1)), range(COUNT))
    first, second = epochs_of(data, 0, worker_init_fn=seed_worker)
    assert len({*first, *second}) == 2 * COUNT


class Flips:
    transform = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])

    def __len__(self):
        return 40

    def __getitem__(self, index):
        corner = self.transform(image=np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, 2))["image"]
        return int(corner[0, 0, 0])


@pytest.mark.parametrize("seed_one", [seed_worker, genaug_torch.seed_worker])
def test_seeded_transforms_are_independent_of_one_another(seed_one):
    loader = DataLoader(Flips(), None, num_workers=1, worker_init_fn=seed_one, multiprocessing_context="fork")
    assert set(loader) == {0, 1, 2, 3}  # neither flip, one, the other, both


@pytest.mark.skipif(not OLD, reason="AlbumentationsX gives workers different numbers by itself")
def test_workers_that_nobody_seeded_are_told():
    """The trap itself, so that we notice should it go away: half of the results are the other half."""
    with pytest.raises(UserWarning, match="gives every worker, in every epoch, the same random numbers"):
        epochs_of(Own(masking()), 0)
    loader = DataLoader(Own(masking()), 2, num_workers=2, worker_init_fn=_hush)
    assert len({*as_bytes(loader), *as_bytes(loader)}) == COUNT // 2


def _hush(worker_id):
    import warnings

    warnings.simplefilter("ignore")


@pytest.mark.skipif(OLD, reason="albumentations 2.0.8 repeats numbers, see above")
def test_workers_need_no_help():
    one = epochs_of(Own(masking()), 0)
    assert len({*one[0], *one[1]}) == 2 * COUNT


def test_only_in_workers():
    with pytest.raises(ConfigError, match="outside a DataLoader worker"):
        seed_worker(0)
