"""Single files: what is read as it is, and what is refused with a reason."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL import Image
from pydantic import ValidationError

from genaug.errors import ConfigError, DataError
from genaug.labels import LabelSpace, default_color
from genaug.sources.config import MAX_PIXELS, FolderOptions
from genaug.sources.folder import FolderSource

LABELS = LabelSpace({0: "road", 1: "car", 15: "tree"})
IDS = np.array([[0, 1], [15, 255]], np.uint8)


def source(root: Path, labels: LabelSpace = LABELS, **options: Any) -> FolderSource:
    return FolderSource(FolderOptions(**{"images": "i", "masks": "m", **options}), labels, root=root)


def put(root: Path, *, image: Image.Image | None = None, mask: Image.Image | None = None, **save: Any) -> Path:
    """Write the pair ``a``; plain files stand in for what is not given, `save` goes to the given one."""
    (root / "i").mkdir(exist_ok=True)
    (root / "m").mkdir(exist_ok=True)
    size = (image or mask or Image.new("L", (2, 2))).size
    (image or Image.new("RGB", size, (9, 8, 7))).save(root / "i" / "a.png", **(save if image else {}))
    (mask or Image.new("L", size)).save(root / "m" / "a.png", **(save if mask else {}))
    return root


def gray_png(depth: int, rows: bytes, width: int, height: int) -> bytes:
    """A gray PNG of any bit depth, written by hand: Pillow writes 1, 8 and 16 bits only."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# ---------------------------------------------------------------------- accepted


def test_a_pair_is_read_bit_by_bit(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    put(tmp_path, image=Image.fromarray(pixels))
    Image.fromarray(IDS).save(tmp_path / "m" / "a.png")
    folder = source(tmp_path)
    sample = folder.load("a")
    assert np.array_equal(sample.image, pixels)
    assert np.array_equal(sample.mask, IDS)
    assert sample.meta == {"image_file": "i/a.png", "mask_file": "m/a.png"}
    assert (folder.check(), len(folder), [s.id for s in folder]) == ([], 1, ["a"])


def test_palette_masks_are_read_by_index_and_never_by_colour(tmp_path: Path) -> None:
    mask = Image.fromarray(IDS)
    mask.putpalette([v for i in range(256) for v in default_color(i)])
    assert mask.mode == "P"
    put(tmp_path, mask=mask)
    with Image.open(tmp_path / "m" / "a.png") as picture:
        assert np.asarray(picture.convert("L")).tolist() == [[0, 38], [147, 220]]  # the trap
    assert np.array_equal(source(tmp_path).load("a").mask, IDS)


def test_small_palettes_are_packed_and_still_ids(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[0, 1, 1], [1, 0, 0]], np.uint8))
    mask.putpalette([0, 0, 0, 255, 0, 0])
    put(tmp_path, mask=mask, bits=1)
    assert source(tmp_path).load("a").mask.tolist() == [[0, 1, 1], [1, 0, 0]]  # type: ignore[union-attr]


def test_gray_images_only_when_asked_for(tmp_path: Path) -> None:
    put(tmp_path, image=Image.fromarray(IDS))
    (line,) = source(tmp_path).check()
    assert "the image is gray: 1x: i/a.png (PNG mode L). Set 'gray: true'" in line
    image = source(tmp_path, gray=True).load("a").image
    assert image is not None
    assert np.array_equal(image, np.stack([IDS] * 3, axis=2))


def test_colour_masks_need_a_colour_for_every_class(tmp_path: Path) -> None:
    colors = {0: (0, 0, 0), 1: (255, 0, 0), 15: (0, 128, 0), 255: (224, 224, 192)}
    rgb = np.array([[colors[int(i)] for i in row] for row in IDS], np.uint8)
    put(tmp_path, mask=Image.fromarray(rgb))
    (line,) = source(tmp_path).check()
    assert "the mask is RGB: colours, not class ids" in line
    assert "'color_map: true'" in line
    painted = LabelSpace(LABELS.names, colors=colors)
    assert np.array_equal(source(tmp_path, painted, color_map=True).load("a").mask, IDS)
    with pytest.raises(ConfigError, match=r"labels\.colors: no colour for 0 \(road\), 1 \(car\), 15 \(tree\)"):
        source(tmp_path, color_map=True)
    no_ignore = LabelSpace(LABELS.names, colors={i: c for i, c in colors.items() if i != 255})
    (line,) = source(tmp_path, no_ignore, color_map=True).check()
    assert "colours that labels.colors does not list: 1x: m/a.png: (224, 224, 192). Add them" in line


@pytest.mark.parametrize("seed", range(3))
def test_colour_tables_agree_with_a_slow_reading(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.choice(256, 12, replace=False).tolist()
    space = LabelSpace({i: str(i) for i in ids[1:]}, ids[0], {i: tuple(rng.integers(0, 256, 3).tolist()) for i in ids})
    expected = rng.choice(ids, (5, 7)).astype(np.uint8)
    rgb = np.array([[space.colors[int(i)] for i in row] for row in expected], np.uint8)
    put(tmp_path, mask=Image.fromarray(rgb))
    assert np.array_equal(source(tmp_path, space, color_map=True).load("a").mask, expected)


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (Image.new("1", (2, 2)), "the mask has 1 bit a pixel"),
        (Image.new("I;16", (2, 2)), "the mask has more than 8 bits a pixel"),
        (Image.new("RGB", (2, 2)), "the mask is RGB"),
        (Image.new("RGBA", (2, 2)), "a mode that holds no class ids: 1x: m/a.png (PNG mode RGBA)"),
        (Image.new("LA", (2, 2)), "a mode that holds no class ids"),
    ],
)
def test_masks_that_hold_no_ids(tmp_path: Path, mask: Image.Image, told: str) -> None:
    (line,) = source(put(tmp_path, mask=mask)).check()
    assert told in line


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (Image.new("RGBA", (2, 2)), "the image is not RGB: 1x: i/a.png (PNG mode RGBA)"),
        (Image.new("P", (2, 2)), "the image is not RGB"),
        (Image.new("1", (2, 2)), "the image is not RGB"),
        (Image.new("I;16", (2, 2)), "the image has more than 8 bits a channel"),
    ],
)
def test_images_that_are_not_rgb(tmp_path: Path, image: Image.Image, told: str) -> None:
    for gray in (False, True):
        (line,) = source(put(tmp_path, image=image), gray=gray).check()
        assert told in line


@pytest.mark.parametrize(("depth", "rows"), [(2, b"\x00\x40\x00\x80"), (4, b"\x00\x01\x00\x10")])
def test_stretched_gray_masks_are_refused(tmp_path: Path, depth: int, rows: bytes) -> None:
    put(tmp_path)
    (tmp_path / "m" / "a.png").write_bytes(gray_png(depth, rows, 2, 2))
    with Image.open(tmp_path / "m" / "a.png") as picture:
        assert set(np.unique(np.asarray(picture))) & {17, 85}  # what a reader would believe
    (line,) = source(tmp_path).check()
    assert f"the mask is stored as L;{depth}, which readers stretch or invert" in line


def test_sixteen_bit_colour_is_refused_although_pillow_calls_it_rgb(tmp_path: Path) -> None:
    put(tmp_path)
    data = gray_png(16, b"\x00" + bytes(range(6)), 1, 1)
    header = data.index(b"IHDR")
    fields = data[header + 4 : header + 13] + b"\x02" + data[header + 14 : header + 17]  # colour type 2: RGB
    fixed = b"IHDR" + fields
    data = data[:header] + fixed + struct.pack(">I", zlib.crc32(fixed)) + data[header + 21 :]
    (tmp_path / "i" / "a.png").write_bytes(data)
    Image.new("L", (1, 1)).save(tmp_path / "m" / "a.png")
    with Image.open(tmp_path / "i" / "a.png") as picture:
        assert picture.mode == "RGB"
    (line,) = source(tmp_path).check()
    assert "the image has more than 8 bits a channel" in line


def test_inverted_tiff_and_jpeg_masks_are_refused(tmp_path: Path) -> None:
    put(tmp_path)
    Image.fromarray(IDS).save(tmp_path / "m" / "a.tif", tiffinfo={262: 0})  # WhiteIsZero
    (line,) = source(tmp_path, mask_suffix=".tif").check()
    assert "the mask is stored as L;I, which readers stretch or invert" in line
    Image.fromarray(IDS).save(tmp_path / "m" / "a.jpg")
    (line,) = source(tmp_path, mask_suffix=".jpg").check()
    assert "the mask is a JPEG: ids change along edges" in line


def test_rotations_by_exif_are_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    put(tmp_path, image=Image.new("RGB", (2, 2)), exif=exif)
    (line,) = source(tmp_path).check()
    assert "EXIF orientation asks for a rotation" in line
    assert "i/a.png (orientation 6)" in line
    exif[0x0112] = 1
    assert source(put(tmp_path, image=Image.new("RGB", (2, 2)), exif=exif)).check() == []


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    put(tmp_path, image=Image.new("RGB", (20, 10)))
    (line,) = source(tmp_path, max_pixels=199).check()[:1]
    assert (
        "the picture is larger than max_pixels (199): 2x: i/a.png (20x10), m/a.png (20x10). Cut it into tiles, or raise"
        in line
    )
    # A file that claims 400 million pixels in 60 bytes: above what Pillow itself opens.
    (tmp_path / "i" / "a.png").write_bytes(gray_png(8, b"", 20_000, 20_000))
    line = source(tmp_path).check()[0]
    assert line.startswith("the picture is too large for Pillow: 1x: i/a.png (")
    assert line.endswith("Cut it into tiles.")  # raising max_pixels would not help


def test_no_limit_above_what_pillow_opens_is_accepted() -> None:
    assert PIL.Image.MAX_IMAGE_PIXELS is not None
    assert 2 * PIL.Image.MAX_IMAGE_PIXELS == MAX_PIXELS == FolderOptions(images="i").max_pixels
    with pytest.raises(ValidationError, match="max_pixels"):
        FolderOptions(images="i", max_pixels=MAX_PIXELS + 1)


def test_damaged_files_are_told_and_do_not_stop_the_rest(tmp_path: Path) -> None:
    put(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for name in "bcd":
        Image.fromarray(noise).save(tmp_path / "i" / f"{name}.png")
        Image.new("L", (32, 32)).save(tmp_path / "m" / f"{name}.png")
    whole = (tmp_path / "i" / "b.png").read_bytes()
    (tmp_path / "i" / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "i" / "c.png").write_bytes(b"no picture at all")
    (tmp_path / "i" / "d.png").write_bytes(b"")
    (line,) = source(tmp_path).check()
    assert line.startswith("the file cannot be read: 3x: i/b.png (")
    assert "i/c.png (not a picture), i/d.png (not a picture)" in line
    assert source(tmp_path).survey().images == 1


def test_animations_are_refused(tmp_path: Path) -> None:
    put(tmp_path)
    frames = [Image.new("RGB", (2, 2), (v, v, v)) for v in (0, 200)]
    frames[0].save(tmp_path / "i" / "a.png", save_all=True, append_images=frames[1:])
    assert "the file holds several pictures: 1x: i/a.png" in source(tmp_path).check()[0]


def test_load_says_what_check_says(tmp_path: Path) -> None:
    put(tmp_path, mask=Image.new("L", (2, 2), 7))
    with pytest.raises(
        DataError, match=r"sample a: m/a\.png: the mask has ids outside the class table \(7\)\. Allowed: "
    ):
        source(tmp_path).load("a")
    put(tmp_path, mask=Image.new("1", (2, 2)))
    with pytest.raises(DataError, match=r"sample a: m/a\.png \(PNG mode 1\): the mask has 1 bit a pixel\. Save"):
        source(tmp_path).load("a")
    with pytest.raises(DataError, match=r"no sample is called 'A'\. "):
        source(tmp_path).load("A")
