"""What a training starts from: diffusers' own first weights, scaled ones, or a ControlNet that somebody trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from genaug import LabelSpace, Rng, Sample
from genaug.errors import ConfigError
from genaug.models import ModelCheck
from genaug.registry import default_registry
from genaug_scribblegen.config import ScribbleGenOptions
from genaug_scribblegen.generator import ScribbleGenGenerator
from genaug_scribblegen.network import start_controlnet
from genaug_scribblegen.null_condition import NullCondition
from genaug_scribblegen.place import find_controlnet
from genaug_scribblegen.training import started
from genaug_tiny.scenes import CLASSES
from genaug_tiny.weights import model_folder

NULL, WEIGHTS = "null_condition.safetensors", "controlnet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("hint_init", ["plain", "scaled"])
def test_the_first_weights_are_what_the_option_says(make_generator, samples, labels, tmp_path, hint_init: str) -> None:
    training = {"steps": 1, "batch_size": 2, "learning_rate": 1e-12, "weight_decay": 0.0, "preview_images": 0}
    generator = make_generator(training={**training, "hint_init": hint_init})
    generator.adapt(samples, tmp_path, labels=labels, rng=Rng(5))
    got = load_file(tmp_path / WEIGHTS)["controlnet_cond_embedding.conv_in.weight"]
    first = start_controlnet(generator.pipe, generator.codec.channels, Rng(5).child("controlnet"), base="tiny")
    plain = first.controlnet_cond_embedding.conv_in.weight.detach()
    assert torch.allclose(got, plain, atol=1e-6) == (hint_init == "plain")


@pytest.fixture
def adapter(make_generator, samples, labels, tmp_path) -> Path:
    folder = tmp_path / "before"
    make_generator().adapt(samples, folder, labels=labels, rng=Rng(1))
    return folder


@pytest.mark.parametrize("inside", ["", "controlnet"])
def test_adapting_goes_on_from_a_named_controlnet(
    make_generator, samples, labels, adapter, tmp_path, inside: str
) -> None:
    training = {"steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    generator = make_generator(controlnet=str(adapter / inside), training=training)
    generator.adapt(samples, tmp_path / "after", labels=labels, rng=Rng(2))
    for name in (WEIGHTS, NULL):
        before, after = load_file(adapter / name), load_file(tmp_path / "after" / name)
        for key, value in before.items():
            torch.testing.assert_close(after[key], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("found", "here", "taken"),
    [
        ((3, 4, 6), (3, 4, 6), True),
        ((3, 4, 6), (3, 7, 5), True),
        ((3, 1, 1), (3, 4, 6), True),
        ((3, 1, 1), (3, 1, 1), True),
        ((3, 4, 6), (3, 1, 1), False),
        ((5, 4, 6), (3, 4, 6), False),
        (None, (3, 4, 6), False),
    ],
)
def test_a_null_condition_goes_on_at_any_size_or_a_warning_tells(tmp_path, caplog, found, here, taken: bool) -> None:
    if found:
        value = torch.randn(found, generator=torch.Generator().manual_seed(0))
        save_file({"null_condition": value}, tmp_path / NULL)
    null = NullCondition(here[0], here[1:])
    null.initialize(Rng(3))
    first = null.value.detach().clone()
    null.take(tmp_path / NULL)
    if not taken:
        assert torch.equal(null.value, first)
        assert [m for m in caplog.messages if "starts from noise, not from what was learned" in m]
        return
    assert not caplog.messages
    for y in range(here[1]):
        for x in range(here[2]):
            assert torch.equal(null.value[:, y, x], value[:, y * found[1] // here[1], x * found[2] // here[2]])


class _Bases:
    """A registry in which a package ships one base."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self, kind: str) -> list[str]:
        return ["a-shipped-base"] if kind == "base" else []

    def component(self, kind: str, name: str) -> str:
        return name

    def load(self, component: str) -> Callable[[], Path]:
        return lambda: self.folder


def test_the_name_of_any_shipped_base_means_the_controlnet_in_its_folder(adapter, tmp_path) -> None:
    place, local = find_controlnet("a-shipped-base", root=tmp_path, registry=_Bases(adapter))
    assert (Path(place), local) == (adapter / "controlnet", True)
    shutil.rmtree(adapter / "controlnet")
    with pytest.raises(ConfigError, match=r"generator\.controlnet: .*has no ControlNet"):
        find_controlnet("a-shipped-base", root=tmp_path, registry=_Bases(adapter))


def test_genaug_tiny_brings_its_controlnet_and_null_condition(tmp_path) -> None:
    labels, shipped = LabelSpace(CLASSES), model_folder()
    scribble = np.full((64, 64), 255, np.uint8)
    scribble[4:7, 8:40], scribble[50:53, 8:40] = 0, 3
    training = {"steps": 1, "batch_size": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "preview_images": 0}
    options = ScribbleGenOptions(base="genaug-tiny", controlnet="genaug-tiny", training=training)
    look = ModelCheck(tmp_path, labels, default_registry(), "generator")
    options.check_models(look)
    assert (look.problems, look.notes) == ([], [])
    sample = Sample("scene", np.zeros((64, 64, 3), np.uint8), scribble)
    ScribbleGenGenerator(options).adapt([sample], tmp_path / "after", labels=labels, rng=Rng(2))
    for name in (WEIGHTS, NULL):
        before, after = load_file(shipped / name), load_file(tmp_path / "after" / name)
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert value.dtype == torch.float16
            torch.testing.assert_close(after[key], value.float(), atol=1e-6, rtol=0)


def test_of_a_plain_hub_id_no_null_condition_is_looked_for_and_a_warning_says_so(
    make_generator, labels, monkeypatch, caplog
) -> None:
    generator = make_generator(controlnet="org/name")
    generator.load_base(labels)
    made = start_controlnet(generator.pipe, 3, Rng(0), base="tiny")
    monkeypatch.setattr("genaug_scribblegen.training.load_controlnet", lambda *_, **__: made)
    with started(generator, Rng(4)) as network:
        expected = torch.randn((3, 64, 64), generator=Rng(4).child("null").torch())
        assert torch.equal(network.null.value, expected)
    assert (
        "generator.controlnet: of a ControlNet named by a plain Hub id no null condition is looked for" in caplog.text
    )


def test_a_controlnet_for_other_hints_is_refused(make_generator, samples, labels, adapter, tmp_path) -> None:
    generator = make_generator(controlnet=str(adapter), hint="onehot")
    with pytest.raises(ConfigError, match=r"generator\.controlnet: .*conditioning_channels 3 instead of"):
        generator.adapt(samples, tmp_path / "after", labels=labels, rng=Rng(2))
    assert not (tmp_path / "after" / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [("missing", "is neither a folder nor a Hub id"), ("empty", "has no ControlNet"), ("cut", "could not be loaded")],
)
def test_a_controlnet_that_cannot_be_read_is_one_line(
    make_generator, samples, labels, adapter, tmp_path, damage: str, message: str
) -> None:
    place = tmp_path / "nowhere"
    if damage == "empty":
        place.mkdir()
    elif damage == "cut":
        place = adapter
        (adapter / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(ConfigError, match=message) as caught:
        make_generator(controlnet=str(place)).adapt(samples, tmp_path / "after", labels=labels, rng=Rng(2))
    assert "\n" not in str(caught.value)
