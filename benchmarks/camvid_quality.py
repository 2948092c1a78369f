"""Does the quality report tell real CamVid images from blurred, downsampled, sparse and generated ones?

    python benchmarks/camvid_quality.py --data CAMVID --work RUNS/camvid/work --json results/camvid_quality.json

Every second training frame is the real set. The other frames are the arms: as they are (nothing may be flagged), with
a Gaussian blur of radius 1, halved and enlarged again, and cropped to the quarter with the fewest regions, enlarged to
the old size. Generated images are those of the stores that ``camvid_matchmask.py`` left in ``--work``; they are 120x90,
and so are the frames they are compared with. A row's ``min`` and ``max`` are its 95 % interval, ``baseline`` is the
real set's value, ``apart`` says that the two intervals do not touch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from camvid_base import words
from camvid_data import IGNORE, read
from harness import emit, parser
from PIL import Image, ImageFilter

from genaug.labels import LabelSpace
from genaug.recipe import BuildContext
from genaug.registry import default_registry
from genaug.report.quality import build_sections, write_quality
from genaug.report.sample_sets import SampleSet, SourceSet, StoreSet
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug_quality.density import mask_density

LABELS = LabelSpace(dict(enumerate(words())), IGNORE)
Pair = tuple[Image.Image, Image.Image]
#: What tells the arms apart, and whether the figures of an arm have to.
MUST = {
    "as they are": (),
    "blurred": ("glcm_score", "glcm_joint_entropy", "compression_ratio"),
    "halved": ("glcm_score", "glcm_joint_entropy", "compression_ratio"),
    "sparse": ("components", "classes", "area_entropy"),
    "generated": ("compression_ratio",),
}


def same(image: Image.Image, mask: Image.Image) -> Pair:
    """Change nothing."""
    return image, mask


def blurred(image: Image.Image, mask: Image.Image) -> Pair:
    """Blur by one pixel."""
    return image.filter(ImageFilter.GaussianBlur(1)), mask


def halved(image: Image.Image, mask: Image.Image) -> Pair:
    """Lose every second pixel, as a generator that works at half the size does."""
    small = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC), mask


def sparse(image: Image.Image, mask: Image.Image) -> Pair:
    """Keep the quarter with the fewest regions, of nine, at the old size."""
    width, height = image.size
    boxes = [
        (x, y, x + width // 2, y + height // 2)
        for x in (0, width // 4, width // 2)
        for y in (0, height // 4, height // 2)
    ]  # fmt: skip
    counts = [mask_density(np.asarray(mask.crop(box)), LABELS)["components"] for box in boxes]
    box = boxes[int(np.nanargmin(counts))]
    return (
        image.crop(box).resize(image.size, Image.Resampling.BICUBIC),
        mask.crop(box).resize(mask.size, Image.Resampling.NEAREST),
    )


def written(folder: Path, frames: Iterator[tuple[str, Pair]], change: Callable[..., Pair]) -> SampleSet:
    """Write changed frames as PNG and return them as a set."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for stem, (image, mask) in frames:
        for kind, picture in zip(("images", "masks"), change(image, mask), strict=True):
            picture.save(folder / kind / f"{stem}.png")
    options = FolderOptions(images="images", masks="masks")
    return SourceSet(FolderSource(options, LABELS, root=folder))


def frames(data: Path, stems: list[str]) -> Iterator[tuple[str, Pair]]:
    """Yield frames at 240x180."""
    for stem in stems:
        with (
            Image.open(data / f"train/images/{stem}.jpg") as image,
            Image.open(data / f"train/masks/{stem}.png") as mask,
        ):
            yield stem, (image.convert("RGB"), Image.fromarray(np.array(mask)))


def compare(arm: str, made: SampleSet, real: SampleSet, options: Any, folder: Path) -> tuple[list[dict], dict]:
    """Return the rows of an arm, and its flags and whether everything that must differ does."""
    context = BuildContext(Path(), LABELS, default_registry())
    report = write_quality(
        made, real, build_sections(context, {}), labels=LABELS, output=folder / arm, title=f"CamVid, {arm}",
        workers=options.workers,
    )  # fmt: skip
    rows, apart = [], {}
    for name in ("density", "fidelity"):
        for row in report["sections"][name]["statistics"]:
            (low, high), (real_low, real_high) = row["synthetic"]["interval"], row["real"]["interval"]
            apart[row["name"]] = high < real_low or low > real_high
            rows.append(
                {
                    "name": f"{arm}: {row['title']}", "value": row["synthetic"]["value"], "unit": "",
                    "baseline": row["real"]["value"], "ratio": row["synthetic"]["value"] / row["real"]["value"],
                    "runs": report["synthetic"]["images"], "min": low, "max": high,
                    "real_interval": [real_low, real_high], "apart": apart[row["name"]],
                }
            )  # fmt: skip
    flags = sorted({flag["harm"] for flag in report["flags"]})
    wanted = MUST[arm.split(",")[0]]
    ok = not flags if not wanted else all(apart[name] for name in wanted)
    duplicates = report["sections"]["duplicates"]["near_duplicates"]
    return rows, {"flags": flags, "as_expected": ok, "near_duplicates": duplicates}


def main() -> None:
    """Compare all arms; fail if one is not told apart, or the untouched frames are."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="CamVid folder")
    arguments.add_argument("--work", type=Path, help="what camvid_matchmask.py was called with; without it no store")
    arguments.add_argument("--pages", type=Path, help="keep the pages here")
    arguments.add_argument("--workers", type=int, default=1)
    options = arguments.parse_args()
    stems = (options.data / "splits" / "train.txt").read_text().split()
    rows, arms = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pages = options.pages or folder / "pages"
        real = written(folder / "real", frames(options.data, stems[::2]), same)
        for arm, change in {"as they are": same, "blurred": blurred, "halved": halved, "sparse": sparse}.items():
            made = written(folder / arm, frames(options.data, stems[1::2]), change)
            found, arms[arm] = compare(arm, made, real, options, pages)
            rows += found
        stores = sorted(options.work.glob("*-seed*/store")) if options.work else []
        if stores:
            small = read(options.data)
            arrays = zip(small.stems[::2], small.images[::2], small.masks[::2], strict=True)
            pairs = ((stem, (Image.fromarray(image), Image.fromarray(mask))) for stem, image, mask in arrays)
            real = written(folder / "small", pairs, same)
        for store in stores:
            arm = f"generated, {store.parent.name.rpartition('-')[2]}"
            found, arms[arm] = compare(arm, StoreSet(store), real, options, pages)
            rows += found
    emit(rows, options.json, arms=arms)
    for arm, result in arms.items():
        print(f"{arm:24} flags: {', '.join(result['flags']) or 'none':20} as expected: {result['as_expected']}")
    if not all(result["as_expected"] for result in arms.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
