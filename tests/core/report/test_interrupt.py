"""Ctrl-C reaches every process of a terminal; only the one that was started by hand may speak of it."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from genaug.labels import LabelSpace
from genaug.report import measure
from genaug.report.figures import Figures, Statistic
from genaug.report.opening import find_place
from genaug.report.quality import write_quality

def interrupt():
    for _ in range(2):  # the impatient press it twice
        os.killpg(0, signal.SIGINT)
        time.sleep(0.1)

class Slow(Figures):
    title = "Slow"
    def statistics(self):
        return [Statistic("mean", "mean", "mean")]
    def measure(self, samples):
        if sys.argv[1] == "work":
            interrupt()
        return [{"mean": 1.0} for _ in samples]

if __name__ == "__mp_main__" and sys.argv[1] == "start":
    interrupt()
if __name__ == "__main__":
    measure._FEW = 1
    labels = LabelSpace({0: "anything"})
    sets = [find_place("images", generated=made).open(labels) for made in (True, False)]
    try:
        write_quality(*sets, {"slow": Slow()}, labels=labels, output="out", workers=2)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups of POSIX")
@pytest.mark.parametrize("when", ["start", "work"])
def test_workers_say_nothing(tmp_path, when):
    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f"images/{i}.png")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", when], cwd=tmp_path, capture_output=True, text=True, start_new_session=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, ["interrupted"])
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
