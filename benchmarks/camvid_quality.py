"""Does the quality report tell real CamVid images from blurred, downsampled, sparse and generated ones?

    python benchmarks/camvid_quality.py --data CAMVID --work RUNS/camvid/work --json results/camvid_quality.json

First, untouched frames against untouched ones, where no flag tells of a generator: random halves of the blocks of time
(the row is the share of halves with a flag), the second half of every drive against the first and the other way round,
and each drive against the others. The bootstrap redraws single frames, blocks of time, or whole drives. A block is 500
video frames, 17 labelled ones or 17 s: the figures of two frames of a drive that far apart are no more alike than those
of any two (rows `correlation`).

Then the arms. Every second training frame is the real set. The other frames are changed: not at all (neighbours of the
real ones, so this only shows that what changes below is due to the change), by a Gaussian blur of radius 1, halved and
enlarged again, and cropped to the quarter with the fewest regions, enlarged to the old size. Generated images are those
of the stores that ``camvid_matchmask.py`` left in ``--work``; they are 120x90, and so are the frames they are compared
with. Blocks of time are redrawn. A row's ``min`` and ``max`` are its 95 % interval, ``baseline`` is the real set's
value, ``side`` is on which side of the real interval it lies, the ``worse`` or the ``better`` one (``lower``,
``higher`` where neither is); null where the intervals touch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from genaug.report.figures import Figures, Measured
from genaug.report.intervals import DRAWS
from genaug.report.measure import Reader
from genaug.report.quality import build_sections, compare_section, write_quality
from genaug.report.sample_sets import SampleSet, SourceSet, StoreSet
from genaug.rng import Rng
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug_quality.density import mask_density

LABELS = LabelSpace(dict(enumerate(words())), IGNORE)
Pair = tuple[Image.Image, Image.Image]
SECTIONS = ("density", "fidelity")
#: Names end in five or six digits. What precedes the last three names 1000 frames of a drive, and the first of those
#: three, in the empty parentheses or not, one half of them.
BLOCK = r"^(.*)(?:[0-4]()|[5-9])\d\d$"
GROUPS = {"frame": None, "block": BLOCK, "drive": r"^([^_]+)_"}
APART = 17  # labelled frames, the length of a block
SPLITS = 200
#: Largest share of random halves with a flag when blocks are redrawn: each of six figures is worse by chance in 1 % of
#: all cases (`genaug.report.intervals.FEWEST`), and a share of 200 is not exact.
MOST = 0.1


@dataclass(frozen=True, slots=True)
class Expected:
    """What the report has to find in an arm.

    Args:
        harms: What it flags, and nothing else.
        figures: Statistics that lie wholly on the worse side of the real ones.
    """

    harms: frozenset[str] = frozenset()
    figures: tuple[str, ...] = ()


TEXTURE = ("glcm_score", "glcm_joint_entropy", "compression_ratio")
EXPECTED = {
    "as they are": Expected(),
    "blurred": Expected(frozenset({"coarser"}), TEXTURE),
    "halved": Expected(frozenset({"coarser"}), TEXTURE),
    "sparse": Expected(frozenset({"sparser", "coarser"}), ("components", "classes", "area_entropy")),
    "generated": Expected(frozenset({"coarser"})),  # in which figure was not known before it was measured
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


def written(folder: Path, frames: Iterator[tuple[str, Pair]], change: Callable[..., Pair]) -> SourceSet:
    """Write changed frames as PNG and return them as a set."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for stem, (image, mask) in frames:
        for kind, picture in zip(("images", "masks"), change(image, mask), strict=True):
            picture.save(folder / kind / f"{stem}.png")
    options = FolderOptions(images="images", masks="masks")
    return SourceSet(FolderSource(options, LABELS, root=folder), by=BLOCK)


def frames(data: Path, stems: list[str]) -> Iterator[tuple[str, Pair]]:
    """Yield frames at 240x180."""
    for stem in stems:
        with (
            Image.open(data / f"train/images/{stem}.jpg") as image,
            Image.open(data / f"train/masks/{stem}.png") as mask,
        ):
            yield stem, (image.convert("RGB"), Image.fromarray(np.array(mask)))


def side(row: Mapping[str, Any]) -> str | None:
    """Return on which side of the real set's interval the synthetic one lies, None if they touch."""
    (low, high), (real_low, real_high) = row["synthetic"]["interval"], row["real"]["interval"]
    found = "lower" if high < real_low else "higher" if low > real_high else None
    if found is None or row["worse"] is None:
        return found
    return "worse" if found == row["worse"] else "better"


def compare(arm: str, made: SampleSet, real: SampleSet, options: Any, folder: Path) -> tuple[list[dict], dict]:
    """Return the rows of an arm, and its flags and whether they and the sides of its figures are as expected."""
    context = BuildContext(Path(), LABELS, default_registry())
    report = write_quality(
        made, real, build_sections(context, {}), labels=LABELS, output=folder / arm, title=f"CamVid, {arm}",
        workers=options.workers,
    )  # fmt: skip
    rows, sides = [], {}
    for name in SECTIONS:
        for row in report["sections"][name]["statistics"]:
            sides[row["name"]] = side(row)
            low, high = row["synthetic"]["interval"]
            rows.append(
                {
                    "name": f"{arm}: {row['title']}", "value": row["synthetic"]["value"], "unit": "",
                    "baseline": row["real"]["value"], "ratio": row["synthetic"]["value"] / row["real"]["value"],
                    "runs": report["synthetic"]["images"], "min": low, "max": high,
                    "real_interval": row["real"]["interval"], "side": sides[row["name"]],
                }
            )  # fmt: skip
    flags = sorted({flag["harm"] for flag in report["flags"]})
    groups = {name: report[name]["groups"] for name in ("synthetic", "real")}
    duplicates = report["sections"]["duplicates"]["near_duplicates"]
    ok = as_expected(EXPECTED[arm.split(",")[0]], flags, sides)
    return rows, {"flags": flags, "as_expected": ok, "groups": groups, "near_duplicates": duplicates}


def as_expected(expected: Expected, flags: Sequence[str], sides: Mapping[str, str | None]) -> bool:
    """Return whether an arm raised the flags it should and no others, and its figures lie on the worse side."""
    return set(flags) == expected.harms and all(sides[name] == "worse" for name in expected.figures)


class Untouched:
    """Figures of untouched frames, measured once and compared with one another.

    Args:
        frames: The frames.
        workers: Processes that measure.
    """

    def __init__(self, frames: SourceSet, workers: int) -> None:
        built = build_sections(BuildContext(Path(), LABELS, default_registry()), {})
        self.sections: dict[str, Figures] = {name: built[name] for name in SECTIONS}
        self.keys = np.array(frames.keys)
        self.groups = {name: SourceSet(frames.source, by=by).groups() for name, by in GROUPS.items()}
        with Reader({"real": frames}, workers) as reader:
            self.measured = reader.measure("real", self.sections)

    def rows(self, section: str, chosen: np.ndarray, grouping: str) -> Measured:
        """Return what a section measured of the frames where `chosen` is True, numbered by a grouping."""
        whole = self.measured[section]
        groups = np.unique(self.groups[grouping][chosen], return_inverse=True)[1]
        return Measured(tuple(self.keys[chosen]), groups, {name: c[chosen] for name, c in whole.columns.items()})

    def compare(self, made: np.ndarray, grouping: str, seed: int = 0) -> dict[str, Any]:
        """Compare the frames where `made` is True, as if they were synthetic, with the others."""
        flags: set[str] = set()
        withheld = False
        for name, section in self.sections.items():
            sets = {"synthetic": self.rows(name, made, grouping), "real": self.rows(name, ~made, grouping)}
            report = compare_section(name, section, sets, Rng(seed).child(name), DRAWS).report
            flags |= {flag["text"].split(":")[0] for flag in report["flags"]}
            withheld |= any(row["withheld"] for row in report["statistics"])
        groups = [len(np.unique(self.groups[grouping][part])) for part in (made, ~made)]
        return {"flags": sorted(flags), "groups": groups, "too_few": withheld}

    def splits(self) -> dict[str, np.ndarray]:
        """Return frames by time and by drive: the second halves of all drives, the first ones, each drive."""
        drives = self.groups["drive"]
        place = np.array([(drives[:i] == drive).sum() / (drives == drive).sum() for i, drive in enumerate(drives)])
        names = {drive: key.partition("_")[0] for drive, key in zip(drives.tolist(), self.keys, strict=True)}
        return {
            "second half of every drive": place >= 0.5,
            "first half of every drive": place < 0.5,
            **{f"drive {names[drive]}": drives == drive for drive in names},
        }

    def false_flags(self, grouping: str) -> dict[str, Any]:
        """Return the row of random halves of the blocks: in how many of them anything is flagged."""
        blocks = self.groups["block"]
        count, hits = int(blocks.max()) + 1, 0
        for seed in range(SPLITS):
            half = Rng(seed).child("half").numpy().permutation(count)[: count // 2]
            hits += bool(self.compare(np.isin(blocks, half), grouping, seed)["flags"])
        share, error = hits / SPLITS, 1.96 * (hits * (SPLITS - hits) / SPLITS**3) ** 0.5
        return {
            "name": f"untouched, random halves: share with a flag, by {grouping}", "value": share, "unit": "",
            "baseline": None, "ratio": None, "runs": SPLITS, "min": max(0.0, share - error),
            "max": min(1.0, share + error),
        }  # fmt: skip

    def correlation(self) -> Iterator[dict[str, Any]]:
        """Yield for every figure with a flag how frames of a drive that are a block apart are correlated."""
        for name, section in self.sections.items():
            for statistic in section.statistics():
                if not statistic.harm:
                    continue
                numbers = self.measured[name].numbers(statistic.value)
                if statistic.per is not None:
                    numbers = numbers / self.measured[name].numbers(statistic.per)
                found = [lagged(numbers[self.groups["drive"] == d]) for d in range(self.groups["drive"].max() + 1)]
                yield {
                    "name": f"untouched, correlation {APART} frames apart: {statistic.title}",
                    "value": float(np.mean(found)), "unit": "", "baseline": None, "ratio": None, "runs": len(found),
                    "min": min(found), "max": max(found),
                }  # fmt: skip


def lagged(values: np.ndarray) -> float:
    """Return the autocorrelation of a drive's figures, `APART` frames apart."""
    values = values - values.mean()
    return float((values[:-APART] * values[APART:]).mean() / values.var())


def untouched(frames: SourceSet, workers: int) -> tuple[list[dict], dict]:
    """Return rows and arms of untouched frames against untouched ones."""
    null = Untouched(frames, workers)
    rows = [null.false_flags("frame"), null.false_flags("block"), *null.correlation()]
    arms: dict[str, Any] = {"untouched, random halves, by block": {"as_expected": rows[1]["value"] <= MOST}}
    for name, made in null.splits().items():
        for grouping in GROUPS:
            found = null.compare(made, grouping)
            arms[f"untouched, {name}, by {grouping}"] = found
            if grouping != "frame" and not found["too_few"]:  # single frames are there to show what goes wrong
                found["as_expected"] = not found["flags"]
    return rows, arms


def main() -> None:
    """Compare all arms; fail if one is not told apart, or untouched frames are."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="CamVid folder")
    arguments.add_argument("--work", type=Path, help="what camvid_matchmask.py was called with; without it no store")
    arguments.add_argument("--pages", type=Path, help="keep the pages here")
    arguments.add_argument("--workers", type=int, default=1)
    options = arguments.parse_args()
    stems = (options.data / "splits" / "train.txt").read_text().split()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pages = options.pages or folder / "pages"
        rows, arms = untouched(written(folder / "all", frames(options.data, stems), same), options.workers)
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
            found, arms[arm] = compare(arm, StoreSet(store, by=BLOCK), real, options, pages)
            rows += found
    emit(rows, options.json, arms=arms)
    for arm, result in arms.items():
        flags = ", ".join(result.get("flags", ())) or "none"
        print(f"{arm:50} flags: {flags:20} as expected: {result.get('as_expected', '-')}")
    if not all(result.get("as_expected", True) for result in arms.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
