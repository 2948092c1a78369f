import json

import pytest
import torch

from genaug.config import validate
from genaug.errors import ConfigError, SampleError
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext
from genaug.testing.predictors import PredictorContract
from genaug_basics.config import ExportedOptions, TransformersOptions
from genaug_basics.exported import ExportedPredictor
from genaug_basics.transformers_predictor import TransformersPredictor

torch.set_num_threads(1)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Network(torch.nn.Module):
    """Half resolution, three classes, and a dropout that must be off."""

    def __init__(self, *, output="tensor"):
        super().__init__()
        self.output = output
        self.layer = torch.nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, images):
        logits = self.drop(self.layer(images))
        return {"tensor": logits, "out": {"out": logits}, "logits": {"logits": logits}, "pair": (logits, logits)}[
            self.output
        ]


def export(path, *, dynamic=True, output="tensor"):
    torch.manual_seed(0)
    module = Network(output=output).eval()
    dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}
    program = torch.export.export(
        module, (torch.rand(2, 3, 32, 48),), dynamic_shapes={"images": dims} if dynamic else None
    )
    torch.export.save(program, path)
    return module


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    return path, export(path)


class TestExportedContract(PredictorContract):
    classes = 3

    @pytest.fixture(autouse=True)
    def _folder(self, exported):
        self.path, self.module = exported

    def make_predictor(self):
        return ExportedPredictor(self.path)

    def test_it_is_the_module_that_was_exported(self):
        images = self.images(2, (32, 48))
        torch.testing.assert_close(self.make_predictor()(images), self.module(images))


@pytest.mark.parametrize("output", ["out", "logits"])
def test_exported_tables_of_outputs_are_understood(tmp_path, output):
    module = export(tmp_path / "m.pt2", output=output)
    images = torch.rand(2, 3, 32, 48)
    torch.testing.assert_close(ExportedPredictor(tmp_path / "m.pt2")(images), module(images)[output])


def test_exported_without_dynamic_shapes_says_what_to_do(tmp_path):
    export(tmp_path / "m.pt2", dynamic=False)
    predictor = ExportedPredictor(tmp_path / "m.pt2")
    assert predictor(torch.rand(2, 3, 32, 48)).shape == (2, 3, 16, 24)
    with pytest.raises(SampleError, match=r"\(1, 3, 32, 48\).*dynamic_shapes"):
        predictor(torch.rand(1, 3, 32, 48))


def test_exported_files_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        ExportedPredictor(tmp_path / "none.pt2")
    (tmp_path / "text.pt2").write_text("no program")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        ExportedPredictor(tmp_path / "text.pt2")(torch.rand(1, 3, 8, 8))
    export(tmp_path / "pair.pt2", output="pair")
    with pytest.raises(SampleError, match="returned no logits"):
        ExportedPredictor(tmp_path / "pair.pt2")(torch.rand(2, 3, 32, 48))


# ---------------------------------------------------------------------- transformers


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("segformer")
    config = SegformerConfig(
        num_labels=3, hidden_sizes=[4, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )  # fmt: skip
    model = SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():  # the initial classifier is nearly zero and would hide mistakes
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    processor = {"image_mean": MEAN, "image_std": STD, "do_normalize": True, "do_rescale": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder, model


class TestTransformersContract(PredictorContract):
    classes = 3

    @pytest.fixture(autouse=True)
    def _folder(self, segformer):
        self.path, self.model = segformer

    def make_predictor(self):
        return TransformersPredictor(self.path)

    def test_it_is_the_model_on_normalised_images(self):
        images = self.images(2, (32, 48))
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        with torch.inference_mode():
            logits = self.model(pixel_values=(images - mean) / std).logits
            assert logits.shape == (2, 3, 8, 12)  # the predictor gives them back at the images' size
            expected = torch.nn.functional.interpolate(logits, size=(32, 48), mode="bilinear", align_corners=False)
            torch.testing.assert_close(self.make_predictor()(images), expected)

    def test_a_working_size_of_its_own(self):
        images = self.images(1, (32, 48))
        with torch.inference_mode():
            predictor = TransformersPredictor(self.path, size=(64, 64))
            assert predictor(images).shape == (1, 3, 32, 48)
            assert not torch.equal(predictor(images), self.make_predictor()(images))


def copy_with(folder, target, **changes):
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    for name, change in changes.items():
        path = target / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    return target


@pytest.mark.parametrize(
    ("change", "factor", "mean", "std"),
    [
        ({"do_normalize": False}, 1, 0, 1),
        ({"do_rescale": False}, 255, MEAN, STD),
        ({"rescale_factor": 1 / 127.5}, 2, MEAN, STD),
    ],
)
def test_the_processor_decides_how_images_are_normalised(segformer, tmp_path, change, factor, mean, std):
    folder, model = segformer
    predictor = TransformersPredictor(copy_with(folder, tmp_path, preprocessor_config=change))
    images = torch.rand(1, 3, 32, 32)
    pixels = (images * factor - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    with torch.inference_mode():
        logits = model(pixel_values=pixels).logits
        expected = torch.nn.functional.interpolate(logits, size=(32, 32), mode="bilinear", align_corners=False)
        torch.testing.assert_close(predictor(images), expected, rtol=1e-4, atol=1e-4)


def test_transformers_folders_that_are_none(segformer, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json"):
        TransformersPredictor(tmp_path)
    copy_with(segformer[0], tmp_path, config={"model_type": "oneformer"})
    with pytest.raises(ConfigError, match="oneformer, which scores queries"):
        TransformersPredictor(tmp_path)
    copy_with(segformer[0], tmp_path, preprocessor_config={"image_mean": [0.5]})
    with pytest.raises(ConfigError, match="three numbers"):
        TransformersPredictor(tmp_path)
    copy_with(segformer[0], tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        TransformersPredictor(tmp_path)(torch.rand(1, 3, 32, 32))


# ---------------------------------------------------------------------- recipes


def test_options_and_paths_of_recipes(segformer, exported, core_registry):
    context = BuildContext(segformer[0].parent, LabelSpace({0: "a", 1: "b"}), core_registry)
    options = validate(TransformersOptions, {"path": segformer[0].name, "size": [64, 32]})
    predictor = TransformersPredictor.from_config(options, context)
    assert (predictor.path, predictor.size) == (segformer[0], (64, 32))
    options = validate(ExportedOptions, {"path": str(exported[0])})
    assert ExportedPredictor.from_config(options, context).path == exported[0]


def test_fingerprints_change_with_the_weights(segformer, exported, tmp_path):
    before = TransformersPredictor(segformer[0]).fingerprint()
    folder = copy_with(segformer[0], tmp_path)
    assert TransformersPredictor(folder).fingerprint() == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(weights))
    assert TransformersPredictor(folder).fingerprint() != before
    (tmp_path / "other.pt2").write_bytes(exported[0].read_bytes() + b"x")
    assert ExportedPredictor(tmp_path / "other.pt2").fingerprint() != ExportedPredictor(exported[0]).fingerprint()
