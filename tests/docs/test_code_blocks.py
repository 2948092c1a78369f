"""Every code block of the README and the docs runs, page by page, top to bottom, in one empty folder per page.

* ``python``: executed; the blocks of a page share their names.
* ``bash``: executed by bash with ``-e``; lines that start with ``make``, ``pip install`` are set-up commands, which
  other checks run for real: here ``make -n`` shows that the target exists. ``python -m pip install`` of a folder is
  run, without network, into a folder of the page's own.
* ``yaml``: a whole recipe; validated. ``text``, ``console`` and ``json`` show output.
"""

from __future__ import annotations

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


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
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
