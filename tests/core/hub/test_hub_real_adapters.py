"""Real adapters through the Hub: in recipes, by `from_pretrained`, in plain peft and diffusers; and hostile ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from hub_folders import tree, write_adapter
from peft import PeftModel
from safetensors.numpy import load_file, save

from genaug import LabelSpace, Rng, Sample
from genaug.errors import AdapterError, ConfigError
from genaug.hub.pretrained import from_pretrained
from genaug.hub.pull import fetch
from genaug.hub.push import push
from genaug.models import check_models
from genaug.recipe import load_recipe
from genaug.registry import default_registry
from genaug.types import Draw
from genaug_diffusion.base import load_pipeline, unet_fingerprint
from genaug_diffusion.place import base_revision, resolve_base
from genaug_diffusion.testing import make_pipeline
from genaug_matchmask.adapter import LTAdapter
from genaug_matchmask.adapter_files import FORMAT
from genaug_matchmask.checkpoint import save_adapter
from genaug_matchmask.config import MatchMaskOptions
from genaug_matchmask.generator import MatchMaskGenerator

torch.set_num_threads(1)

LABELS = LabelSpace({0: "sky", 2: "road"})
ABOUT = {
    "labels": LABELS.to_dict(),
    "resolution": 64,
    "size_mode": "square",
    "sampler": {"preset": "fast", "steps": 2, "guidance_scale": 1.0},
    "training": {"samples": 4, "steps": 7},
}


def randomized(unet: torch.nn.Module) -> LTAdapter:
    adapter = LTAdapter(unet)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters().items():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=Rng(0).child(name).torch()))
    return adapter


@pytest.fixture(scope="module")
def tiny():
    return load_pipeline("genaug-tiny", root=Path(), registry=default_registry())


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "adapter"
    adapter = randomized(tiny.unet)
    save_adapter(adapter, folder, base="genaug-tiny", revision=None, about=ABOUT)
    adapter.detach()
    return folder


@pytest.fixture
def published(hub, folder):
    push(folder, "me/tiny", license="mit", version="v1")
    return hub


def image(generator) -> np.ndarray:
    mask = np.full((64, 64), 0, np.uint8)
    mask[30:] = 2
    (made,) = generator.generate([Draw(Sample("a", None, mask), 0, 5)], ignore_index=255)
    return made.image


@pytest.fixture
def one_base(tiny, monkeypatch):
    """Load the base once for all generators; only one of them has an adapter on it at a time."""
    monkeypatch.setattr("genaug_diffusion.generator.load_pipeline", lambda *_, **__: tiny)
    return tiny


def test_from_pretrained_and_recipes_make_the_same_images(published, folder, one_base) -> None:
    options = {"base": "genaug-tiny", "preset": "fast", "steps": 2, "guidance_scale": 1.0, "batch_size": 1}
    local = MatchMaskGenerator(MatchMaskOptions(adapter=str(folder), **options))
    local.prepare(LABELS)
    expected = image(local)
    local.adapter.detach()
    generator, labels, place = from_pretrained("me/tiny", revision="v1")
    assert labels == LABELS
    assert place == fetch(_ref("me/tiny@v1"))
    assert (generator.options.preset, generator.options.steps) == ("fast", 2)  # as it was trained
    assert np.array_equal(image(generator), expected)
    generator.adapter.detach()
    named = MatchMaskGenerator(MatchMaskOptions(adapter="hf-hub:me/tiny@v1", **options))
    assert not named.needs_adapting
    named.prepare(LABELS)
    assert np.array_equal(image(named), expected)
    assert named.describe()["adapter"] == local.describe()["adapter"]
    named.adapter.detach()
    again = from_pretrained(folder, steps=3).generator
    assert again.options.steps == 3
    again.adapter.detach()


def _ref(text: str):
    from genaug.hub.reference import HubRef

    return HubRef.parse(text)


def test_check_looks_at_a_copy_and_never_fetches(published, tmp_path) -> None:
    recipe = load_recipe(
        {
            "labels": LABELS.to_dict(),
            "data": {"format": "folder", "images": "i", "masks": "m"},
            "generator": {"use": "matchmask", "base": "genaug-tiny", "adapter": "hf-hub:me/tiny@v1"},
        },
        root=tmp_path,
    )
    published.log.clear()
    look = check_models(recipe, ["generator"])
    note = "generator.adapter: 'hf-hub:me/tiny@v1' is on the Hub and not fetched yet, so it is not checked"
    assert (look.problems, look.notes, published.log) == ([], [note], [])
    weights = fetch(_ref("me/tiny@v1")) / "adapter_model.safetensors"
    assert (check_models(recipe, ["generator"]).problems, check_models(recipe, ["generator"]).notes) == ([], [])
    weights.resolve().write_bytes(b"damaged")
    assert "damaged" in check_models(recipe, ["generator"]).problems[0]


def test_models_on_the_hub_are_noted_and_not_fetched_by_check(hub, tmp_path) -> None:
    recipe = load_recipe(
        {
            "labels": LABELS.to_dict(),
            "data": {"format": "folder", "images": "i", "masks": "m"},
            "generator": {"use": "scribblegen", "base": "hf-hub:org/sd@v5", "controlnet": "hf-hub:org/cn"},
            "filters": [
                {"use": "confidence", "predictor": "hf-hub:org/segmenter@v1"},
                {"use": "class-loss", "predictor": {"use": "transformers", "path": "hf-hub:org/segmenter"}},
                {"use": "confidence", "name": "wrong", "predictor": "hf-hub:segmenter"},
            ],
        },
        root=tmp_path,
    )
    look = check_models(recipe, ["generator", "filters"])
    assert [note.partition(":")[0] for note in look.notes] == [
        "generator.base", "generator.controlnet", "filters.0.predictor", "filters.1.predictor.path",
    ]  # fmt: skip
    assert len(look.problems) == 1
    assert "filters.2.predictor: 'segmenter' is no name of a repository" in look.problems[0]
    assert hub.log == []


def test_a_base_with_its_revision(hub, tmp_path) -> None:
    assert resolve_base("hf-hub:org/sd@v5", root=Path(), registry=default_registry()) == ("org/sd", False)
    assert base_revision("hf-hub:org/sd@v5", None) == base_revision("hf-hub:org/sd@v5", "v5") == "v5"
    assert base_revision("org/sd", "v4") == "v4"
    with pytest.raises(ConfigError, match="one revision"):
        base_revision("hf-hub:org/sd@v5", "v4")
    files = tree(write_adapter(tmp_path / "a", base="hf-hub:org/sd@v5", revision=None))
    assert b"hf-hub:org/sd" in files["genaug_config.json"]
    push(tmp_path / "a", "me/x", license="mit")
    sent = hub.repos["model", "me/x"].files
    assert json.loads(sent["adapter_config.json"].data)["base_model_name_or_path"] == "org/sd"
    config = json.loads(sent["genaug_config.json"].data)
    assert (config["base"], config["revision"]) == ("org/sd", "v5")


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")  # diffusers passes it
def test_plain_peft_and_diffusers_load_it(published) -> None:
    """As the ordinary LoRA that it is beside layout and timestep scale."""
    registry = default_registry()
    one, two = (load_pipeline("genaug-tiny", root=Path(), registry=registry).unet for _ in range(2))
    x, text = torch.ones(1, one.config.in_channels, 16, 16), torch.ones(1, 77, one.config.cross_attention_dim)
    before = one(x, 3, text).sample
    with_peft = PeftModel.from_pretrained(one, "me/tiny", revision="v1")
    assert with_peft.peft_config["default"].base_model_name_or_path == "genaug-tiny"
    after = with_peft(x, 3, text).sample
    assert not torch.equal(before, after)
    two.load_lora_adapter("me/tiny", weight_name="adapter_model.safetensors", prefix="base_model.model")
    torch.testing.assert_close(two(x, 3, text).sample, after, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")
def test_diffusers_loads_a_scribblegen_controlnet(hub, tmp_path) -> None:
    from genaug_scribblegen.adapter_files import FORMAT as SCRIBBLEGEN
    from genaug_scribblegen.checkpoint import save_adapter as save_scribblegen
    from genaug_scribblegen.network import ScribbleNetwork, start_controlnet
    from genaug_scribblegen.null_condition import NullCondition
    from genaug_scribblegen.place import find_controlnet

    pipe = make_pipeline()
    controlnet, null = start_controlnet(pipe, 3, Rng(0), base="tiny"), NullCondition(3, (64, 64))
    about = {**ABOUT, "hint": {"kind": "rgb", "channels": 3}, "null_shape": "full"}
    network = ScribbleNetwork(pipe.unet, controlnet, null)
    save_scribblegen(network, tmp_path / "a", base="org/sd", revision="v5", about=about)
    push(tmp_path / "a", "me/scribbles", license="creativeml-openrail-m")
    files = hub.repos["model", "me/scribbles"].files
    assert {"controlnet/config.json", "controlnet/diffusion_pytorch_model.safetensors"} < set(files)
    loaded = ControlNetModel.from_pretrained("me/scribbles", subfolder="controlnet")
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, controlnet.state_dict()[name])
    folder = fetch(_ref("me/scribbles"))
    assert SCRIBBLEGEN.check_files(folder)["revision"] == "v5"
    assert b"library_name: diffusers" in files["README.md"].data
    place, local = find_controlnet("hf-hub:me/scribbles", root=Path(), registry=default_registry())
    assert (Path(place), local) == (folder / "controlnet", True)


def test_an_expression_that_takes_for_ever_is_not_matched(hub, folder, one_base) -> None:
    publish(hub, folder, target_modules="(([a-z._0-9])+)+!")
    generator, _, _ = from_pretrained("evil/x")
    assert generator.adapter.layers
    generator.adapter.detach()


# ---------------------------------------------------------------------- formats


def test_newer_keys_are_warned_about_and_newer_formats_refused(published, folder, tmp_path, caplog, one_base) -> None:
    config = json.loads((folder / "genaug_config.json").read_text())
    for name, data in tree(folder).items():
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / name).write_bytes(data)
    path = tmp_path / "new/genaug_config.json"
    assert FORMAT.read(tmp_path / "new")["rank"] == 4
    assert caplog.text == ""
    path.write_text(json.dumps({**config, "style": "oil", "later": 1}))
    push(tmp_path / "new", "me/new", license="mit")
    FORMAT.read(fetch(_ref("me/new")))
    assert "written by a newer genaug; this one does not know later, style" in caplog.text
    path.write_text(json.dumps({**config, "format": "lt-adapter/2"}))
    push(tmp_path / "new", "me/new", license="mit")
    fetch.cache_clear()
    with pytest.raises(AdapterError, match=r"format 'lt-adapter/2'\. Allowed: .*A newer format needs a newer genaug"):
        from_pretrained("me/new")


# ---------------------------------------------------------------------- hostile at loading


def publish(hub, folder: Path, data: bytes | None = None, **changes) -> None:
    """Put a changed adapter on the Hub, its hashes right."""
    files = tree(folder)
    if data is not None:
        files["adapter_model.safetensors"] = data
    config = {**json.loads(files["genaug_config.json"]), **changes}
    config["weights_sha256"] = hashlib.sha256(files["adapter_model.safetensors"]).hexdigest()
    files["genaug_config.json"] = json.dumps(config).encode()
    hub.put("evil/x", files)


def test_foreign_bases_and_wrong_shapes_are_one_line(hub, folder, one_base) -> None:
    before = unet_fingerprint(one_base.unet)
    state = load_file(folder / "adapter_model.safetensors")
    name = next(key for key in state if "lora_A" in key)
    wrong = {**state, name: np.zeros((4, state[name].shape[1] + 1), np.float32)}
    few = {key: value for key, value in state.items() if key != name}
    fewer = {"base_fingerprint": unet_fingerprint(make_pipeline().unet), "base": "genaug-tiny"}
    for data, changes, message in (
        (None, fewer, "has another architecture"),
        (save(wrong), {}, name.split(".")[-2]),
        (save(few), {}, "misses 1 tensors"),
        (None, {"rank": 10**9}, "rank"),
        (None, {"target_modules": ["x"]}, "no value that is known"),
        (None, {"layers": ["conv_in", "conv_in"]}, "order differ|misses"),
        (None, {"layers": ["x"]}, "order differ"),
        (None, {"base": "/home/me/model"}, "its base model is '/home/me/model', a path"),
        (None, {"base": "../model"}, "its base model is '../model', a path"),
        (None, {"method": "os.system"}, "os.system"),
    ):
        publish(hub, folder, data, **changes)
        fetch.cache_clear()
        with pytest.raises((AdapterError, ConfigError, KeyError), match=message) as error:
            from_pretrained("evil/x")
        assert "\n" not in str(error.value), message
        assert len(str(error.value)) < 700
        assert unet_fingerprint(one_base.unet) == before
        assert not any("lora" in name for name, _ in one_base.unet.named_modules())
