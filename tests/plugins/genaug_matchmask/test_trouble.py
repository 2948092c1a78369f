"""Full disks and damaged files while adapting and probing: said in words, nothing lost, the same bytes in the end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from genaug import Registry, Rng
from genaug.errors import AdapterError, StoreError
from genaug_diffusion.config import TrainingOptions
from genaug_diffusion.training import AdapterTrainer
from genaug_matchmask.config import MatchMaskOptions
from genaug_matchmask.generator import MatchMaskGenerator

WEIGHTS, CONFIG, CHECKPOINT = "adapter_model.safetensors", "genaug_config.json", "checkpoint.safetensors"
TRAINING = {"steps": 4, "checkpoint_every": 2, "preview_images": 1, "learning_rate": 1e-2, "batch_size": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of an undisturbed training; filled by the first test that asks for `generator`."""
    return tmp_path_factory.mktemp("made") / "adapter"


@pytest.fixture
def generator(base_folder, samples, labels, made) -> MatchMaskGenerator:
    options = MatchMaskOptions(base=str(base_folder), preset="fast", steps=2, training=TrainingOptions(**TRAINING))
    generator = MatchMaskGenerator(options, registry=Registry([]))
    if not made.exists():
        generator.adapt(samples, made, labels=labels, rng=Rng(1))
    return generator


@pytest.fixture
def folder(generator, made, tmp_path) -> Path:
    """A copy of the finished folder."""
    for name, data in tree(made).items():
        (tmp_path / "adapter" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "adapter" / name).write_bytes(data)
    return tmp_path / "adapter"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def half(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)


# ---------------------------------------------------------------------- full disk


@pytest.mark.parametrize("room", [3, 8, 15])
def test_a_full_disk_while_adapting(generator, made, samples, labels, tmp_path, monkeypatch, room: int) -> None:
    real, calls = os.fsync, list[int]()

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > room:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"the disk is full.*run the same command again"):
            generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    assert not generator.adapted(tmp_path / "a")
    assert not [name for name in tree(tmp_path / "a") if ".tmp-" in name]
    generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    assert tree(tmp_path / "a") == tree(made)
    assert generator.adapted(tmp_path / "a")


def test_leftovers_of_a_killed_training_go(generator, made, samples, labels, tmp_path) -> None:
    for name in (".tmp-learning-12", "previews/.tmp-learning-34"):
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_bytes(b"half")
    generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(1))
    assert tree(tmp_path / "a") == tree(made)


def test_a_probe_finds_a_folder_it_cannot_write_before_it_computes(generator, samples, labels, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    settings = {"mode": "gradient", "epochs": 1, "share": 0.1, "optimizer": "adamw", "learning_rate": 1e-5}
    generator.options = generator.options.model_copy(update={"base": "no/such/base"})  # loading it would fail
    for place in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(StoreError, match="cannot create the folder"):
            generator.probe(samples, place, labels=labels, rng=Rng(0), **settings)


def test_a_probe_whose_disk_is_full_in_the_end_still_tells_its_result(
    generator, samples, labels, tmp_path, monkeypatch
) -> None:
    settings = {"mode": "gradient", "epochs": 1, "share": 0.1, "optimizer": "adamw", "learning_rate": 1e-5}
    report = generator.probe(samples, tmp_path / "whole", labels=labels, rng=Rng(0), **settings)

    def full(descriptor: int) -> None:
        raise OSError(27, "File too large")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            StoreError, match=r"probe\.json: the probe is done, but cannot write: the file is larger"
        ) as e:
            generator.probe(samples, tmp_path / "p", labels=labels, rng=Rng(0), **settings)
    assert f"generator.target_modules: {report['target_modules']}" in str(e.value)
    assert e.value.errno == 27
    assert tree(tmp_path / "p") == {}
    generator.probe(samples, tmp_path / "p", labels=labels, rng=Rng(0), **settings)
    assert tree(tmp_path / "p") == tree(tmp_path / "whole")


# ---------------------------------------------------------------------- damage


def test_a_damaged_checkpoint_of_an_unfinished_adapter(generator, made, folder, samples, labels) -> None:
    (folder / CONFIG).unlink()
    good = (folder / CHECKPOINT).read_bytes()
    for damage in (half, empty, flip):
        (folder / CHECKPOINT).write_bytes(good)
        damage(folder / CHECKPOINT)
        before = tree(folder)
        with pytest.raises(AdapterError, match=r"checkpoint\.safetensors: damaged: .*delete this one file"):
            generator.adapt(samples, folder, labels=labels, rng=Rng(1))
        assert tree(folder) == before
    (folder / CHECKPOINT).unlink()  # as the hint says
    generator.adapt(samples, folder, labels=labels, rng=Rng(1))
    assert tree(folder) == tree(made)


def test_a_checkpoint_made_before_there_was_a_hash_goes_on(
    generator, made, folder, samples, labels, monkeypatch
) -> None:
    (folder / CONFIG).unlink()
    with safe_open(folder / CHECKPOINT, "pt") as file:
        about = json.loads(file.metadata()["genaug"])
    del about["tensors"]
    save_file(load_file(folder / CHECKPOINT), folder / CHECKPOINT, metadata={"genaug": json.dumps(about)})
    monkeypatch.setattr(AdapterTrainer, "_step", None)
    generator.adapt(samples, folder, labels=labels, rng=Rng(1))
    assert (folder / CONFIG).read_bytes() == (made / CONFIG).read_bytes()


@pytest.mark.parametrize(
    ("name", "damage"), [(WEIGHTS, half), (WEIGHTS, empty), (WEIGHTS, flip), (CONFIG, half), (CONFIG, empty)]
)
def test_a_damaged_finished_adapter(generator, made, folder, samples, labels, monkeypatch, name, damage) -> None:
    assert generator.adapted(folder)
    damage(folder / name)
    before = tree(folder)
    with pytest.raises(AdapterError, match=rf"{name}: damaged: .*delete this one file and adapt again"):
        generator.adapted(folder)
    generator.load_adapted(folder)
    with pytest.raises(AdapterError, match=rf"{name}: damaged"):
        generator.prepare(labels)
    assert tree(folder) == before
    (folder / name).unlink()  # as the hint says
    assert not generator.adapted(folder)
    with pytest.raises(AdapterError, match=r"is missing|no genaug_config"):
        generator.prepare(labels)
    monkeypatch.setattr(AdapterTrainer, "_step", None)  # it goes on from the last checkpoint: no step is left
    generator.adapt(samples, folder, labels=labels, rng=Rng(1))
    assert tree(folder) == tree(made)


def test_an_adapter_made_before_there_was_a_hash_is_still_adapted(generator, folder, labels) -> None:
    config = json.loads((folder / CONFIG).read_text())
    del config["weights_sha256"]
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    assert generator.adapted(folder)
    generator.load_adapted(folder)
    generator.prepare(labels)
    saved = load_file(folder / WEIGHTS)
    assert all(torch.equal(saved[name], value) for name, value in generator.adapter.state_dict().items())
    half(folder / WEIGHTS)
    with pytest.raises(AdapterError, match="damaged: cannot be read"):
        generator.adapted(folder)


def test_an_incomplete_table_is_damage(generator, folder, labels) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if k not in ("rank", "labels")}))
    with pytest.raises(AdapterError, match="damaged: it lacks labels, rank"):
        generator.adapted(folder)
