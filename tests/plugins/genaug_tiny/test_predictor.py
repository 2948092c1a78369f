import json
import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from genaug.config import validate
from genaug.errors import AdapterError, ConfigError, SampleError
from genaug.interfaces import Adaptable
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext
from genaug.registry import Registry
from genaug.rng import Rng
from genaug.testing.filters import LABELS, make_mask, make_sample
from genaug.testing.predictors import PredictorContract
from genaug.types import Sample
from genaug_tiny.config import SmallUNetOptions
from genaug_tiny.predictor import RECORD, SmallUNetPredictor, save_predictor
from genaug_tiny.segmenter import SmallUNet

torch.set_num_threads(1)
QUICK = {"steps": 4, "batch_size": 4, "width": 4}


def samples(count=6, size=(16, 24), seed=0):
    rng = Rng(seed)
    return [make_sample(f"s{i}", make_mask(rng.child(i), size), rng.child(i)) for i in range(count)]


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


class TestSmallUNetContract(PredictorContract):
    classes = 3

    def make_predictor(self):
        torch.manual_seed(0)
        return self.saved(SmallUNet(3, width=4))

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def saved(self, model):
        save_predictor(model.eval(), self.folder / "unet", labels=LABELS, size=(32, 48))
        return SmallUNetPredictor(labels=LABELS, path=self.folder / "unet")

    def test_it_is_the_model_at_its_size_and_resizes_others(self):
        torch.manual_seed(0)
        model = SmallUNet(3, width=4)
        predictor = self.saved(model)
        images = self.images(1, (32, 48))
        with torch.inference_mode():
            assert torch.equal(predictor(images), model.eval()(images))
            large = torch.nn.functional.interpolate(images, size=(64, 96), mode="nearest")
            small = predictor(large)
        assert small.shape == (1, 3, 64, 96)


def test_it_learns_ids_with_gaps_and_becomes_useful(tmp_path):
    predictor = SmallUNetPredictor(labels=LABELS, steps=60, batch_size=4, width=6)
    assert isinstance(predictor, Adaptable)
    assert predictor.needs_adapting
    assert not predictor.adapted(tmp_path)
    report = predictor.adapt(samples(), tmp_path, labels=LABELS, rng=Rng(3))
    assert json.loads(json.dumps(report)) == report
    assert report["samples"] == 6
    assert report["size"] == [16, 24]
    assert report["training_miou"] > 0.8

    predictor.load_adapted(tmp_path)
    held_out = samples(3, seed=9)
    right = total = 0
    for sample in held_out:
        image = torch.from_numpy(sample.image).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            seen = np.array(LABELS.ids)[predictor(image).argmax(1)[0].numpy()]
        labelled = sample.mask != 255
        right, total = right + (seen == sample.mask)[labelled].sum(), total + labelled.sum()
    assert right / total > 0.8


def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path):
    def train(folder):
        folder.mkdir()
        SmallUNetPredictor(labels=LABELS, **QUICK).adapt(samples(), folder, labels=LABELS, rng=Rng(3))

    train(tmp_path / "once")
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "segmenter.safetensors").write_bytes(b"half")
    predictor = SmallUNetPredictor(labels=LABELS, **QUICK)
    assert not predictor.adapted(tmp_path / "twice")
    predictor.adapt(samples(), tmp_path / "twice", labels=LABELS, rng=Rng(3))
    assert files_of(tmp_path / "once") == files_of(tmp_path / "twice")
    assert predictor.adapted(tmp_path / "twice")


def test_adapted_means_these_options_and_these_classes(tmp_path):
    SmallUNetPredictor(labels=LABELS, **QUICK).adapt(samples(), tmp_path, labels=LABELS, rng=Rng(3))
    assert SmallUNetPredictor(labels=LABELS, **QUICK).adapted(tmp_path)
    assert not SmallUNetPredictor(labels=LABELS, **{**QUICK, "steps": 5}).adapted(tmp_path)
    assert not SmallUNetPredictor(labels=LABELS, **QUICK, size=(16, 16)).adapted(tmp_path)
    other = LabelSpace({1: "road", 4: "car", 8: "tree"})
    assert not SmallUNetPredictor(labels=other, **QUICK).adapted(tmp_path)
    with pytest.raises(AdapterError, match=r"\[1, 4, 9\].*\[1, 4, 8\]"):
        SmallUNetPredictor(labels=other, path=tmp_path)


@pytest.mark.parametrize("name", ["segmenter.safetensors", "segmenter.json", RECORD])
def test_damage_stops_it_and_deleting_the_file_mends_it(tmp_path, name):
    predictor = SmallUNetPredictor(labels=LABELS, **QUICK)
    predictor.adapt(samples(), tmp_path, labels=LABELS, rng=Rng(3))
    before = files_of(tmp_path)
    (tmp_path / name).write_bytes(before[name][: len(before[name]) // 2])
    for use in (
        lambda: predictor.adapted(tmp_path),
        lambda: predictor.load_adapted(tmp_path),
        lambda: SmallUNetPredictor(labels=LABELS, path=tmp_path),
    ):
        with pytest.raises(AdapterError, match=rf"{name}: damaged: .*delete this one file"):
            use()
    (tmp_path / name).unlink()  # as the hint says
    assert not predictor.adapted(tmp_path)
    with pytest.raises(AdapterError, match=f"{name} is missing"):
        predictor.load_adapted(tmp_path)
    predictor.adapt(samples(), tmp_path, labels=LABELS, rng=Rng(3))
    assert files_of(tmp_path) == before


def test_one_trained_before_weights_had_a_hash_is_still_adapted(tmp_path):
    predictor = SmallUNetPredictor(labels=LABELS, **QUICK)
    predictor.adapt(samples(), tmp_path, labels=LABELS, rng=Rng(3))
    config = json.loads((tmp_path / "segmenter.json").read_text())
    assert config.pop("weights_sha256")
    (tmp_path / "segmenter.json").write_text(json.dumps(config))
    assert predictor.adapted(tmp_path)
    predictor.load_adapted(tmp_path)
    assert predictor(torch.rand(1, 3, 16, 24)).shape == (1, 3, 16, 24)


@pytest.mark.parametrize(
    ("sizes", "size", "expected"),
    [
        ([(16, 24), (16, 24)], None, [16, 24]),
        ([(16, 24), (24, 16)], None, [128, 128]),
        ([(16, 130)], None, [128, 128]),
        ([(16, 24), (24, 16)], (8, 16), [8, 16]),
    ],
)
def test_the_size_it_works_at(tmp_path, sizes, size, expected):
    rng = Rng(0)
    data = [make_sample(f"s{i}", make_mask(rng.child(i), s), rng.child(i)) for i, s in enumerate(sizes)]
    predictor = SmallUNetPredictor(labels=LABELS, steps=1, batch_size=1, width=2, size=size)
    assert predictor.adapt(data, tmp_path, labels=LABELS, rng=Rng(0))["size"] == expected


def test_what_it_cannot_learn_from_is_named(tmp_path):
    predictor = SmallUNetPredictor(labels=LABELS, **QUICK)
    image = np.zeros((8, 8, 3), np.uint8)
    for bad, words in (
        ([], "no labelled sample"),
        ([Sample("photo", image)], "sample photo"),
        ([Sample("odd", image, np.full((8, 8), 3, np.uint8))], r"sample odd: the mask holds id 3"),
    ):
        with pytest.raises(SampleError, match=words):
            predictor.adapt(bad, tmp_path, labels=LABELS, rng=Rng(0))
    with pytest.raises(AdapterError, match="not learned"):
        predictor(torch.rand(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="at least two"):
        SmallUNetPredictor(labels=LabelSpace({0: "all"}))
    for text in ("{", "[]", '{"use": "transformers"}'):
        (tmp_path / RECORD).write_text(text)
        with pytest.raises(AdapterError, match=RECORD):
            SmallUNetPredictor(labels=LABELS, path=tmp_path)


def test_a_recipe_finds_it_by_its_folder_alone(tmp_path):
    save_predictor(SmallUNet(3, width=4).eval(), tmp_path / "unet", labels=LABELS, size=(16, 16))
    context = BuildContext(tmp_path, LABELS, Registry([EntryPoint("tiny", "genaug_tiny.plugin", "genaug")]))
    ready = context.predictor("unet", where="test")
    assert isinstance(ready, SmallUNetPredictor)
    assert not ready.needs_adapting
    assert context.adaptables == []
    to_train = context.predictor({"use": "small-unet", "steps": 3}, where="test")
    assert to_train.needs_adapting
    assert [component for _, component in context.adaptables] == [to_train]
    assert context.predictor({"use": "small-unet", "steps": 3}, where="elsewhere") is to_train


def test_fingerprints_follow_the_weights(tmp_path):
    prints = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        save_predictor(SmallUNet(3, width=4).eval(), tmp_path, labels=LABELS, size=(16, 16))
        prints.append(SmallUNetPredictor(labels=LABELS, path=tmp_path).fingerprint())
    assert prints[0] == prints[1] != prints[2]


def test_options_are_checked():
    assert validate(SmallUNetOptions, {"size": [64, 64]}).size == (64, 64)
    for wrong in ({"steps": 0}, {"path": ""}, {"sise": 3}):
        with pytest.raises(ConfigError):
            validate(SmallUNetOptions, wrong)


def test_listing_it_needs_no_torch():
    code = (
        "import sys, genaug_tiny.plugin, genaug_tiny.config, genaug_tiny.predictor; "
        "list(genaug_tiny.plugin.genaug_components()); print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in result.stdout
