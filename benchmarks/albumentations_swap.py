"""``SyntheticSwap`` in a pipeline against reading and decoding the same two PNG files with Pillow, and with OpenCV.

A call of the pipeline draws a sample, reads its image and mask, compares both with what was written (SHA-256), checks
the masks' ids and hands the pair on. The baselines read the files of the same samples, in the same order, and decode
them; OpenCV also swaps its blue and red. One thread, rendered scenes; a run is one pass over all samples, each let go
before the next is read, and the three take turns. The bound is 1.2 times Pillow.
"""

from __future__ import annotations

import io
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, alternate, compare, emit, parser, row
from PIL import Image

from genaug.recipe import load_recipe
from genaug.store import SampleStore, open_writer
from genaug.types import Draw, Sample
from genaug_albumentations import SyntheticSwap
from genaug_albumentations.host import A
from genaug_tiny.scenes import CLASSES, render_scenes

#: How much longer than reading and decoding a swap may take.
BOUND = 1.2


def make_store(folder: Path, count: int, size: int) -> SampleStore:
    """Write a store of rendered scenes, one for each id."""
    options = {"use": "matchmask", "base": "genaug-tiny"}
    table = {"labels": CLASSES, "data": {"images": "images", "masks": "masks"}, "generator": options}
    keys = []
    with open_writer(load_recipe(table, root=folder)) as writer:
        writer.plan(count, 1, missing=count)
        for number in range(count):
            images, masks = render_scenes([number], size=size)
            condition = Sample(f"scene{number:04d}", mask=masks[0])
            writer.put_condition(condition)
            writer.add([Draw(condition, 0, number)], [Sample(condition.id, images[0], masks[0])], {})
            keys.append(f"{condition.id}_0")
        writer.finish(keys)
    return SampleStore.open(folder / "synthetic")


def pillow(path: Path) -> np.ndarray:
    """Read and decode with Pillow."""
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        return np.array(picture)


def opencv(path: Path) -> np.ndarray:
    """Read and decode with OpenCV."""
    import cv2

    pixels: Any = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 else pixels


def measure(count: int, size: int, runs: int) -> list[Row]:
    """Return the rows of one size."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), count, size)
        ids = [key.rpartition("_")[0] for key in store.index]
        pipeline = A.Compose([SyntheticSwap(store.path, CLASSES, p=1)], seed=0)
        image, mask = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
        files = [(store.path / f"images/{i}_0.png", store.path / f"masks/{i}_0.png") for i in ids]

        def swap() -> Iterator[Any]:
            return (pipeline(image=image, mask=mask, genaug_metadata={"id": i}) for i in ids)

        def read(decode: Callable[[Path], np.ndarray]) -> Iterator[Any]:
            return ((decode(picture), decode(labels)) for picture, labels in files)

        for out, by_pillow, by_opencv in zip(swap(), read(pillow), read(opencv), strict=True):
            for number, name in enumerate(("image", "mask")):
                assert np.array_equal(out[name], by_pillow[number])
                assert np.array_equal(out[name], by_opencv[number])
        # Kept together, a pass's samples measure the allocator: whether it gives their memory back at the end, to fetch
        # it again page by page, is chance.
        drained = {
            "swap": lambda: deque(swap(), maxlen=0),
            "Pillow": lambda: deque(read(pillow), maxlen=0),
            "OpenCV": lambda: deque(read(opencv), maxlen=0),
        }
        times = alternate(drained, runs=runs)
    times = {name: [seconds / count for seconds in values] for name, values in times.items()}
    shares = [swapped / plain for swapped, plain in zip(times["swap"], times["Pillow"], strict=True)]
    setting = f"{size}x{size}"
    return [
        compare(f"a swap (baseline: Pillow), {setting}", times, candidate="swap", baseline="Pillow"),
        compare(f"a swap (baseline: OpenCV), {setting}", times, candidate="swap", baseline="OpenCV"),
        row(f"a swap over Pillow, bound {BOUND}, {setting}", shares, BOUND, "x"),
    ]


def main() -> None:
    """Measure all sizes."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=15)
    arguments.add_argument("--count", type=int, default=16, help="samples of the store")
    arguments.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    options = arguments.parse_args()
    torch.set_num_threads(1)
    rows = [r for size in options.sizes for r in measure(options.count, size, options.runs)]
    emit(rows, options.json, albumentations=A.__version__)


if __name__ == "__main__":
    main()
