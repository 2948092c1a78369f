import copy
import random
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog, build_detection_train_loader
from detectron2_helpers import config, register, write_toys
from torch.utils.data import get_worker_info

from genaug.errors import ConfigError, SampleError
from genaug_detectron2 import StreamLoader, SyntheticMapper, unlabeled_dicts

# More workers than cores are slow, not wrong.
pytestmark = [
    pytest.mark.usefixtures("toys"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def synthetic(tmp_path_factory):
    """Datasets ``toy_made`` (30 images) and ``toy_own`` (2 for each of the images 0 and 1 of ``toy_train``)."""
    root = tmp_path_factory.mktemp("toy_made")
    dicts = write_toys(root, range(100, 130))
    register("toy_made", dicts)
    owners = ["0", "0", "1", "1"]
    register("toy_own", [{**entry, "condition_id": owner} for entry, owner in zip(dicts, owners, strict=False)])


def names(entry):
    """A mapper that reads nothing: what came in, what it drew and where."""
    worker = get_worker_info()
    told = {"file": entry["file_name"], "worker": None if worker is None else worker.id, "width": 56, "height": 40}
    return {**told, "draw": np.random.rand(), "genaug": entry.get("genaug")}  # noqa: NPY002


def taken(made):
    return made["genaug"]["synthetic"]


def train(mapper, count, workers=0):
    dicts = DatasetCatalog.get("toy_train")
    loader = build_detection_train_loader(dataset=dicts, mapper=mapper, total_batch_size=2, num_workers=workers)
    return [made for batch in islice(iter(loader), count // 2) for made in batch]


def test_the_share_of_synthetic_samples():
    mapper = SyntheticMapper(names, "toy_made", probability=0.3, seed=1)
    made = [mapper(entry) for _ in range(250) for entry in DatasetCatalog.get("toy_train")]
    drawn = Counter(map(taken, made))
    assert 0.65 < drawn.pop(None) / 1000 < 0.75
    assert len(drawn) == 30
    assert max(drawn.values()) < 30
    for entry in made:
        assert (taken(entry) or entry["file"].rpartition("/")[2][:-4]) == entry["file"].rpartition("/")[2][:-4]


@pytest.mark.parametrize(("probability", "synthetic"), [(0.0, "toy_made"), (0.5, None)])
def test_nothing_is_drawn(probability, synthetic):
    mapper = SyntheticMapper(names, synthetic, probability=probability)
    assert all(taken(mapper(entry)) is None for entry in DatasetCatalog.get("toy_train"))


def test_own_samples_only():
    mapper = SyntheticMapper(names, "toy_own", probability=1, match="own")
    real = DatasetCatalog.get("toy_train")
    found = {number: {taken(mapper(entry)) for _ in range(30)} for number, entry in enumerate(real)}
    assert found == {0: {"100", "101"}, 1: {"102", "103"}, 2: {None}, 3: {None}}


def test_draws_leave_the_mappers_own_draws_alone():
    np.random.seed(3)  # noqa: NPY002
    alone = [names(entry)["draw"] for entry in DatasetCatalog.get("toy_train")]
    np.random.seed(3)  # noqa: NPY002
    mapper = SyntheticMapper(names, "toy_made")
    assert [mapper(entry)["draw"] for entry in DatasetCatalog.get("toy_train")] == alone


def test_draws_repeat_with_the_seed_and_differ_without():
    def drawn(seed):
        mapper = SyntheticMapper(names, "toy_made", seed=seed)
        return [taken(mapper(entry)) for _ in range(10) for entry in DatasetCatalog.get("toy_train")]

    assert drawn(1) == drawn(1) != drawn(2)


def test_workers_of_detectron2s_own_loader_draw_differently():
    made = train(SyntheticMapper(names, "toy_made", probability=1), 24, workers=2)
    drawn = Counter(map(taken, made))  # 24 of 30 with replacement: about 17 different ones
    assert len(drawn) >= 13
    by_worker = [[taken(entry) for entry in made if entry["worker"] == worker] for worker in (0, 1)]
    assert min(map(len, by_worker)) >= 8
    assert by_worker[0][:8] != by_worker[1][:8]


def stream(workers=0, mapper=None, start=0, count=24, batch_size=2, seed=7):
    loader = StreamLoader(
        DatasetCatalog.get("toy_train"),
        SyntheticMapper(names, "toy_made") if mapper is None else mapper,
        batch_size=batch_size,
        num_workers=workers,
        seed=seed,
    )
    loader.start_at(start)
    return [made for batch in islice(iter(loader), count // batch_size) for made in batch]


def test_a_stream_depends_on_nothing_but_seed_and_position():
    whole = stream()
    assert stream() == whole
    assert [{**entry, "worker": None} for entry in stream(workers=2, count=12)] == whole[:12]
    assert stream(batch_size=4) == whole
    assert stream(start=5, count=14) == whole[10:]
    assert stream(seed=8) != whole
    assert [entry["genaug"]["position"] for entry in whole] == list(range(24))


def test_a_stream_has_every_sample_once_an_epoch_in_new_orders():
    files = [entry["file"] for entry in stream(mapper=names)]
    epochs = [files[n : n + 4] for n in range(0, 24, 4)]
    assert all(len(set(epoch)) == 4 for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 2
    assert len({entry["draw"] for entry in stream(mapper=names)}) == 24


def test_a_stream_leaves_the_global_states_alone():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    stream()
    assert random.getstate() == states[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_what_a_mapper_cannot_use_is_replaced():
    def sometimes(entry):
        return None if entry["file_name"].endswith(("/0.png", "/1.png")) else names(entry)

    files = {entry["file"].rpartition("/")[2] for entry in stream(mapper=SyntheticMapper(sometimes))}
    assert files == {"2.png", "3.png"}
    with pytest.raises(SampleError, match="returned None 10 times"):
        stream(mapper=lambda entry: None)


def test_mappers_that_change_what_they_get():
    def changing(entry):
        del entry["sem_seg_file_name"]
        entry["more"].clear()
        return {"file": entry["file_name"]}

    real = {**DatasetCatalog.get("toy_train")[0], "more": [1]}
    register("changed", [{**entry, "more": [2]} for entry in DatasetCatalog.get("toy_own")])
    mapper = SyntheticMapper(changing, "changed", probability=0.9)
    before = copy.deepcopy((real, mapper.dicts))
    assert {taken(mapper(real)) for _ in range(100)} == {None, "100", "101", "102", "103"}
    assert (real, mapper.dicts) == before
    list(islice(iter(StreamLoader([real], changing, batch_size=1)), 3))
    assert real == before[0]


def test_unlabelled_dictionaries_tell_nothing_of_labels(tmp_path):
    dicts = unlabeled_dicts("toy_more")
    assert len(dicts) == 8
    assert all(set(entry) == {"file_name", "height", "width", "image_id"} for entry in dicts)
    made = DatasetMapper(config(tmp_path), is_train=True)(dicts[0])
    assert "sem_seg" not in made
    assert len(unlabeled_dicts(["toy_more", "toy_val"])) == 12


def test_instances_cannot_be_replaced():
    real = DatasetCatalog.get("toy_train")[0] | {"annotations": []}
    with pytest.raises(SampleError, match="annotations, which synthetic samples lack"):
        SyntheticMapper(names, "toy_made", probability=1)(real)
    assert taken(SyntheticMapper(names, "toy_made", probability=0)(real)) is None


def test_from_a_configuration(tmp_path):
    cfg = config(tmp_path, SYNTHETIC="toy_made", PROBABILITY=1.0, SEED=4)
    mapper = SyntheticMapper.from_config(cfg)
    assert isinstance(mapper.mapper, DatasetMapper)
    assert (mapper.probability, mapper.num_classes, mapper.ignore_index) == (1.0, 3, 255)
    made = mapper(DatasetCatalog.get("toy_train")[0])
    assert made["sem_seg"].shape == made["image"].shape[1:]
    assert SyntheticMapper.from_config(cfg, names).mapper is names
    MetadataCatalog.get("renamed").set(stuff_classes=["sky", "wall", "grass"])
    DatasetCatalog.register("renamed", lambda: DatasetCatalog.get("toy_made"))
    cfg.GENAUG.SYNTHETIC = "renamed"
    with pytest.raises(ConfigError, match="differ from class 1 on: 'grass' and 'wall'"):
        SyntheticMapper.from_config(cfg)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"probability": 1.5}, "probability"), ({"match": "nearest"}, "'any' or 'own'"), ({"synthetic": "none"}, "empty")],
)
def test_wrong_options(options, told):
    if "none" not in DatasetCatalog.list():
        DatasetCatalog.register("none", list)
    with pytest.raises(ConfigError, match=told):
        SyntheticMapper(names, **options)


def test_wrong_streams():
    with pytest.raises(ConfigError, match="dictionaries"):
        StreamLoader([], names, batch_size=2)
    with pytest.raises(ConfigError, match="batch_size"):
        StreamLoader([{}], names, batch_size=0)
