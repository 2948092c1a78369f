"""Every code block of the README and the docs runs, page by page, top to bottom, in one empty folder per page.

* ``python``: executed; the blocks of a page share their names. The README's begin with what a reader has (`owned`).
* ``bash``: executed by bash with ``-e``; lines that start with ``make``, ``pip install`` are set-up commands, which
  other checks run for real: here ``make -n`` shows that the target exists. ``python -m pip install`` of a folder is
  run, without network, into a folder of the page's own.
* ``yaml``: a whole recipe; validated. ``text``, ``console`` and ``json`` show output.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genaug.config import parse
from genaug.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = {"text", "console", "json"}


def blocks(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), flags=re.M | re.S)


def run_bash(code: str, folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(folder / ".site"),
        "PIP_TARGET": str(folder / ".site"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one the other way round: no isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    lines = code.splitlines()
    for line in [x for x in lines if x.startswith("make ")]:
        subprocess.run(["make", "-n", *line.split("#")[0].split()[1:]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    rest = "\n".join(x for x in lines if not x.startswith(("make ", "git clone ", "cd ", "pip install ")))
    done = subprocess.run(
        ["bash", "-e", "-c", rest], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def owned() -> dict[str, object]:
    """Return what the README's blocks take for granted: data, a model and an optimizer; and a store in the folder."""
    import albumentations
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, TrainingArguments

    from genaug.store import open_writer
    from genaug.types import Draw, Sample
    from genaug_tiny.scenes import CLASSES, render_scenes

    pairs = list(zip(*render_scenes(range(4)), strict=True))
    table = {"labels": CLASSES, "data": {"images": "images"}, "generator": {"use": "matchmask", "base": "genaug-tiny"}}
    with open_writer(load_recipe(table, root=Path())) as writer:
        writer.plan(len(pairs), 1, missing=len(pairs))
        for number, (image, mask) in enumerate(pairs):
            writer.add([Draw(Sample(f"{number}", None, mask), 0, number)], [Sample(f"{number}", image, mask)], {})
        writer.finish([f"{number}_0" for number in range(len(pairs))])
    tensors = [(torch.from_numpy(image).movedim(-1, 0) / 255, torch.from_numpy(mask).long()) for image, mask in pairs]
    sizes = {"hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4, "decoder_hidden_size": 16}
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=8, **sizes))
    return {
        "A": albumentations,
        "partial": functools.partial,
        "classes": CLASSES,
        "pairs": pairs,
        "names": [f"{number}" for number in range(len(pairs))],
        "unlabeled_images": [image for image, _ in pairs],
        "train_set": tensors,
        "labeled_loader": torch.utils.data.DataLoader(tensors, batch_size=2),
        "unlabeled_loader": torch.utils.data.DataLoader([image for image, _ in tensors], batch_size=2),
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=1e-3),
        "arguments": TrainingArguments("run", max_steps=1, report_to="none", dataloader_pin_memory=False),
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__", **(owned() if page.name == "README.md" else {})}
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, f"{page.name}", "exec"), names)
        elif language == "bash":
            run_bash(code, tmp_path)
        elif language == "yaml":
            assert load_recipe(parse(code, ".yaml", where=page.name)).config.name
        else:
            assert language in SHOWN, f"{page.name}: a block is marked {language!r}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_what_the_readme_builds_also_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = owned()
    for language, code in blocks(ROOT / "README.md"):
        if language == "python":
            exec(compile(code, "README.md", "exec"), names)
    assert len(names["train_set"]) == 4  # type: ignore[arg-type]  # of the dataset for albumentations
    assert names["trainer"].train().global_step == 1  # type: ignore[attr-defined]
