"""docs/how-to/publish.md: what needs a Hub runs here, against the loopback, in this process to save its imports."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from genaug.cli import group
from genaug_tiny.scenes import CLASSES

PAGE = (Path(__file__).resolve().parents[3] / "docs/how-to/publish.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.M | re.S)


def genaug(line: str) -> None:
    assert line.startswith("genaug ")
    group.main(shlex.split(line)[1:], standalone_mode=False)


def test_the_page_through_a_hub(hub, tmp_path, monkeypatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    data, run = blocks("python")
    exec(data, {})
    subprocess.run(["bash", "-e", "-c", blocks("bash")[0]], check=True)
    exec(run, {})
    commands = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    assert [command.split()[1] for command in commands] == ["push", "push", "pull", "pull", "generate"]
    for command in commands:
        genaug(command)
    adapter, store = hub.repos["model", "me/town-matchmask"], hub.repos["dataset", "me/town"]
    assert (store.private, list(adapter.tags)) == (True, ["v1"])
    assert (work / "adapter/adapter_model.safetensors").is_file()
    assert (work / "town-synthetic/dataset.json").is_file()
    images = sorted((work / "more/images").glob("*.png"))
    assert len(images) == 4
    # The same adapter, so the same images as before it was published.
    assert all(image.read_bytes() == (work / "synthetic/images" / image.name).read_bytes() for image in images)
    names: dict[str, object] = {}
    exec(next(text for text in blocks("text") if "from_pretrained" in text), names)
    assert names["labels"].names == CLASSES  # type: ignore[attr-defined]


def test_the_page_names_the_classes_and_limits_of_the_code() -> None:
    from genaug.hub.listing import GIB, MAX_BYTES, MIB
    from genaug.hub.weights import MAX_HEADER

    assert "{" + ", ".join(f"{i}: {name}" for i, name in CLASSES.items()) + "}" in PAGE
    assert f"more than {MAX_BYTES // GIB} GiB" in PAGE
    assert f"more than {MAX_HEADER // MIB} MiB" in PAGE.replace("\n", " ")
