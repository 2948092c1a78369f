"""The published folder: plain diffusers loads the ControlNet; anything damaged or foreign is refused in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from safetensors.torch import load_file

from genaug import LabelSpace
from genaug.errors import AdapterError
from genaug_diffusion.testing import make_pipeline
from genaug_scribblegen.adapter_files import CONTROLNET_CONFIG, FORMAT, NULL, WEIGHTS
from genaug_scribblegen.checkpoint import load_adapter, save_adapter, weights_fingerprint
from genaug_scribblegen.codec import make_codec

LABELS = LabelSpace({0: "background", 1: "dog", 4: "cat", 9: "potted plant"})


def save(network, folder: Path, labels: LabelSpace = LABELS, hint: str = "rgb") -> Path:
    about = {
        "labels": labels.to_dict(), "hint": make_codec(hint, labels).describe(), "null_shape": "spatial",
        "training": {"samples": 4, "steps": 7},
    }  # fmt: skip
    save_adapter(network, folder, base="some/base", revision="abc", about=about)
    return folder


def load(folder: Path, labels: LabelSpace = LABELS, hint: str = "rgb", pipe=None):
    return load_adapter(pipe or make_pipeline(), folder, make_codec(hint, labels), labels, base="some/base")


@pytest.fixture(scope="module")
def made(make_network, tmp_path_factory) -> Path:
    return save(make_network(make_pipeline()), tmp_path_factory.mktemp("made") / "adapter")


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "adapter")


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, 16, 16, generator=generator),
        torch.tensor([10, 900]),
        torch.randn(2, 77, 32, generator=generator),
        torch.rand(2, 3, 64, 64, generator=generator),
    )


def test_reload_is_bit_equal_and_equal_adapters_have_equal_bytes(made, make_network, inputs, tmp_path) -> None:
    network, again = make_network(make_pipeline()), load(made)
    dropped = torch.tensor([True, False])
    with torch.no_grad():
        assert torch.equal(again(*inputs, dropped), network(*inputs, dropped))
    assert not any(p.requires_grad for p in again.parameters())
    assert not again.training
    save(again, tmp_path / "again")
    files = sorted(str(p.relative_to(made)) for p in made.rglob("*") if p.is_file())
    assert files == sorted([WEIGHTS, CONTROLNET_CONFIG, NULL, "README.md", "genaug_config.json"])
    assert all((made / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    assert weights_fingerprint(made) == weights_fingerprint(tmp_path / "again")


def test_plain_diffusers_loads_and_runs_the_controlnet(made, make_network, inputs) -> None:
    plain, info = ControlNetModel.from_pretrained(made / "controlnet", output_loading_info=True)
    assert type(plain) is ControlNetModel
    assert not any(info.values())
    network = make_network(make_pipeline())
    with torch.no_grad():
        got, expected = (c(*inputs, return_dict=False) for c in (plain, network.controlnet))
    assert all(torch.equal(a, b) for a, b in zip((*got[0], got[1]), (*expected[0], expected[1]), strict=True))
    pipe = make_pipeline()
    parts = {name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    stock = StableDiffusionControlNetPipeline(
        **parts, controlnet=plain, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    stock.set_progress_bar_config(disable=True)
    hint = make_codec("rgb", LABELS).encode(torch.full((1, 64, 64), 4, dtype=torch.uint8))
    image = stock("a cat", image=hint, num_inference_steps=2, height=64, width=64, output_type="np").images[0]
    assert image.shape == (64, 64, 3)
    card = (made / "README.md").read_text()
    assert "library_name: diffusers" in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert rows == [
        "| id | class | hint: red, green, blue |", "|---|---|---|", "| 0 | background | 0, 0, 0 |",
        "| 1 | dog | 128, 0, 0 |", "| 4 | cat | 0, 0, 128 |", "| 9 | potted plant | 192, 0, 0 |",
        "| 255 | (unlabelled) | 224, 224, 192 |",
    ]  # fmt: skip


def test_the_controlnet_loads_where_there_is_no_genaug(made) -> None:
    code = (
        "import sys; sys.modules['genaug'] = sys.modules['genaug_scribblegen'] = None; import diffusers; "
        "model = diffusers.ControlNetModel.from_pretrained('controlnet'); "
        "assert model.config.conditioning_channels == 3"
    )
    subprocess.run([sys.executable, "-c", code], cwd=made, check=True)


def test_what_the_table_says(made) -> None:
    config = FORMAT.read(made)
    assert (config["method"], config["base"], config["revision"]) == ("scribblegen", "some/base", "abc")
    colors = {"0": [0, 0, 0], "1": [128, 0, 0], "4": [0, 0, 128], "9": [192, 0, 0], "255": [224, 224, 192]}
    assert config["hint"] == {"kind": "rgb", "channels": 3, "ids": [0, 1, 4, 9], "unlabelled": 255, "colors": colors}
    assert load_file(made / NULL)["null_condition"].shape == (3, 64, 64)


def test_a_hint_drawn_from_the_published_colours_alone_is_the_codecs(made) -> None:
    table = json.loads((made / "genaug_config.json").read_text())["hint"]["colors"]
    mask = torch.tensor([[[0, 1, 255], [9, 4, 4]]], dtype=torch.uint8)
    hint = torch.tensor([[table[str(i)] for i in row] for row in mask[0].tolist()]).permute(2, 0, 1) / 255
    assert torch.equal(make_codec("rgb", LABELS).encode(mask)[0], hint)


def test_adapters_from_before_the_colours_were_written_load(folder) -> None:
    path = folder / "genaug_config.json"
    config = json.loads(path.read_text())
    del config["hint"]["colors"]
    path.write_text(json.dumps(config))
    load(folder)


def refused(folder: Path, message: str, **changes) -> None:
    with pytest.raises(AdapterError, match=message) as caught:
        load(folder, **changes)
    assert "\n" not in str(caught.value)


def test_another_base_is_one_line(made) -> None:
    other = make_pipeline(block_out_channels=(32, 96))
    refused(made, "was made for 'some/base'; 'some/base' has another architecture", pipe=other)


@pytest.mark.parametrize("name", [WEIGHTS, CONTROLNET_CONFIG, NULL])
def test_damaged_and_missing_files(folder, name: str) -> None:
    data = (folder / name).read_bytes()
    for damaged in (data[: len(data) // 2], b"", data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]):
        (folder / name).write_bytes(damaged)
        refused(folder, f"{name}: damaged: its content is not what was written")
        with pytest.raises(AdapterError, match="damaged"):
            FORMAT.check_files(folder)
    (folder / name).unlink()
    refused(folder, f"{name} is missing")
    assert FORMAT.record(folder) is None


def test_damaged_tables(folder) -> None:
    config = folder / "genaug_config.json"
    good = json.loads(config.read_text())
    config.write_text(json.dumps({k: v for k, v in good.items() if k not in ("hint", "weights_sha256")}))
    refused(folder, "damaged: it lacks hint, weights_sha256")
    config.write_text(json.dumps({**good, "format": "scribblegen/9"}))
    refused(folder, "newer genaug")
    config.write_text(json.dumps({**good, "method": "matchmask"}))
    refused(folder, "an adapter of method 'matchmask'")
    config.write_text("{")
    refused(folder, "cannot be read")
    config.unlink()
    refused(folder, "no genaug_config.json")
    refused(folder / "nowhere", "no such folder")


def test_hints_must_mean_what_they_meant(made, make_network, tmp_path) -> None:
    refused(made, "trained with hint rgb, the recipe says onehot", hint="onehot")
    refused(made, "unlabelled 255, the class table of the recipe has 254", labels=LabelSpace({1: "dog"}, 254))
    load(made, labels=LabelSpace({1: "dog", 7: "unicorn"}))  # colours belong to ids
    onehot = save(make_network(make_pipeline(), 5), tmp_path / "onehot", hint="onehot")
    assert "| 9 | potted plant |\n" in (onehot / "README.md").read_text()
    load(onehot, hint="onehot")
    refused(onehot, r"channels 5, the class table of the recipe has 3 \(2 classes\)", hint="onehot",
            labels=LabelSpace({1: "dog", 4: "cat"}))  # fmt: skip
    refused(onehot, r"ids \[0, 1, 4, 9\], the class table of the recipe has \[0, 1, 4, 8\]", hint="onehot",
            labels=LabelSpace({0: "a", 1: "b", 4: "c", 8: "d"}))  # fmt: skip
    table = tmp_path / "wrong"
    save(make_network(make_pipeline(), 4), table, hint="onehot")  # its table says 5 channels, its weights have 4
    refused(table, "hints of 4 channels, a null condition of 4. Allowed: 5 channels", hint="onehot")
