import math
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genaug.errors import ConfigError, DataError
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext, load_recipe
from genaug.registry import Registry
from genaug_scribbles.annotation import MAX_BYTES
from genaug_scribbles.config import ScribbleSupOptions
from genaug_scribbles.scribblesup import ScribbleSupSource
from genaug_scribbles.strokes import brush, line, painted

LABELS = LabelSpace({0: "background", 3: "cat", 8: "sofa"})


def xml(*strokes, size=(20, 12), head=""):
    """The text of a file with the given ``(tag, points)``, as ScribbleSup writes it."""
    text = f"{head}<annotation><folder>x</folder><filename>a.jpg</filename>"
    if size:
        text += f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    text += "<segmented>1</segmented>"
    for tag, points in strokes:
        text += f"<polygon><tag>{escape(tag)}</tag>"
        text += "".join(f"<point><X>{x}</X><Y>{y}</Y></point>" for x, y in points) + "</polygon>"
    return text + "</annotation>"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes annotations (id -> text or bytes) beside images of 20x12 pixels."""
    for name in ("images", "strokes"):
        (tmp_path / name).mkdir()

    def write(size=(20, 12), **files):
        for name, content in files.items():
            Image.new("RGB", size, (9, 99, 200)).save(tmp_path / "images" / f"{name}.jpg")
            path = tmp_path / "strokes" / f"{name}.xml"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def source(root, labels=LABELS, **options):
    options = ScribbleSupOptions(images="images", annotations="strokes", **options)
    return ScribbleSupSource(options, labels, root=root)


# ---------------------------------------------------------------------- drawing


def slow_line(points):
    """Every step of every segment, in exact fractions."""
    pixels = []
    for (x0, y0), (x1, y1) in pairwise(points):
        n = max(abs(x1 - x0), abs(y1 - y0))
        for k in range(n):
            x, y = x0 + Fraction(k * (x1 - x0), n), y0 + Fraction(k * (y1 - y0), n)
            pixels.append((math.floor(x + Fraction(1, 2)), math.floor(y + Fraction(1, 2))))
    return [*pixels, points[-1]]


def slow_drawing(strokes, width, height, stroke_width):
    """Class id -> set of pixels whose middle is at most half the width from where the brush has been."""
    shift = 0 if stroke_width % 2 else Fraction(1, 2)
    inked = {}
    for class_id, points in strokes:
        for px, py in slow_line(points):
            for y in range(height):
                for x in range(width):
                    if (x - px + shift) ** 2 + (y - py + shift) ** 2 <= Fraction(stroke_width, 2) ** 2:
                        inked.setdefault((x, y), set()).add(class_id)
    return inked


POINTS = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 7)), min_size=1, max_size=4)


@settings(max_examples=60)
@given(points=POINTS)
def test_lines_are_the_nearest_pixels_without_gaps(points):
    pixels = line(np.array(points, np.int64))
    assert [tuple(map(int, p)) for p in pixels] == slow_line(points)
    assert (np.abs(np.diff(pixels, axis=0)) <= 1).all()


def test_brushes_are_round_and_as_wide_as_asked():
    for width in range(1, 12):
        offsets = brush(width)
        assert (np.ptp(offsets, axis=0) == width - 1).all()
        assert abs(len(offsets) / (math.pi * width**2 / 4) - 1) < 0.28 or width == 1
        assert {tuple(o) for o in offsets} == {tuple(o[::-1]) for o in offsets}
    assert len(brush(1)) == 1
    assert len(brush(3)) == 9
    assert len(brush(5)) == 21


def test_what_lies_outside_is_cut():
    flat = painted(np.array([[0, 0], [4, 2], [-3, 1]]), brush(3), (3, 5))
    assert sorted(set(flat.tolist())) == [0, 1, 5, 6, 8, 9, 13, 14]


@settings(max_examples=30)
@given(
    strokes=st.lists(st.tuples(st.sampled_from([0, 3, 8]), POINTS), min_size=1, max_size=3),
    stroke_width=st.integers(1, 5),
)
def test_strokes_are_drawn_as_a_slow_reference_draws_them(strokes, stroke_width, tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    for name in ("images", "strokes"):
        (root / name).mkdir()
    Image.new("RGB", (11, 8)).save(root / "images" / "a.png")
    text = xml(*((LABELS.names[i], points) for i, points in strokes), size=(11, 8))
    (root / "strokes" / "a.xml").write_text(text)
    inked = slow_drawing(strokes, 11, 8, stroke_width)
    crossing = {pixel for pixel, ids in inked.items() if len(ids) > 1}
    expected = np.full((8, 11), 255, np.uint8)
    for (x, y), ids in inked.items():
        expected[y, x] = 255 if len(ids) > 1 else next(iter(ids))
    loaded = source(root, stroke_width=stroke_width, contradictions="ignore").load("a")
    np.testing.assert_array_equal(loaded.mask, expected)
    if crossing:
        with pytest.raises(DataError, match="strokes of two classes lie on the same pixels"):
            source(root, stroke_width=stroke_width).load("a")
    else:
        np.testing.assert_array_equal(source(root, stroke_width=stroke_width).load("a").mask, expected)


def test_the_order_of_strokes_decides_nothing(write):
    strokes = [("cat", [(1, 5), (18, 5)]), ("sofa", [(10, 1), (10, 10)]), ("background", [(2, 2), (17, 9)])]
    root = write(a=xml(*strokes), b=xml(*reversed(strokes)))
    loaded = [source(root, contradictions="ignore").load(name).mask for name in "ab"]
    np.testing.assert_array_equal(*loaded)
    assert {0, 3, 8, 255} == set(np.unique(loaded[0]))


def test_a_sound_folder_is_read_with_all_it_says(write):
    root = write(a=xml(("cat", [(1, 1), (6, 1)]), ("sofa", [(2, 8)])), b=xml(("background", [(1.4, 1), (1.6, 9)])))
    drawn = source(root, stroke_width=1)
    survey = drawn.survey()
    assert survey.problems == []
    assert [str(note)[:60] for note in survey.notes] == ["scribbles of one class only: 1x: strokes/b.xml. Beside the o"]
    assert (survey.images, survey.masks, survey.is_sparse(255)) == (2, 2, True)
    assert survey.pixels[[0, 3, 8]].tolist() == [9, 6, 1]
    assert survey.strokes[[0, 3, 8]].tolist() == [1, 1, 1]
    sample = drawn.load("a")
    assert sample.meta == {"image_file": "images/a.jpg", "mask_file": "strokes/a.xml"}
    assert sample.image.shape == (12, 20, 3)
    assert np.argwhere(sample.mask == 8).tolist() == [[8, 2]]
    x_of_y = {y: 1 if y < 5 else 2 for y in range(1, 10)}
    assert np.argwhere(drawn.load("b").mask == 0).tolist() == [[y, x] for y, x in x_of_y.items()]


def test_points_may_count_from_one(write):
    root = write(a=xml(("cat", [(1, 1), (20, 1)]), ("sofa", [(3, 12)])))
    mask = source(root, origin=1, stroke_width=1).load("a").mask
    assert (mask[0] == 3).all()
    assert mask[11, 2] == 8
    (line,) = source(root).check()
    assert "(x=20 y=1, x=3 y=12; the image is 20x12). Mend them" in line
    assert "data.origin to 1 if they count from 1" in line


def test_an_image_without_stroke_is_noted_as_an_empty_mask_is(write):
    root = write(a=xml(("cat", [(1, 1)]), ("sofa", [(9, 9)])), b=xml())
    survey = source(root).survey()
    assert survey.problems == []
    assert list(map(str, survey.notes)) == ["masks whose every pixel is ignored (id 255): 1x: strokes/b.xml."]
    assert (source(root).load("b").mask == 255).all()


# ---------------------------------------------------------------------- bad input


def test_all_problems_are_told_at_once_with_their_files(write):
    good = ("background", [(9, 3)])
    root = write(
        cross=xml(("cat", [(2, 2), (8, 2)]), ("sofa", [(5, 0), (5, 6)])),
        far=xml(good, ("cat", [(-1, 3), (4, 12), (4, 4), (20, 0), (21, 0)])),
        names=xml(good, ("cart", [(1, 1)]), ("tree", [(2, 2)])),
        names2=xml(good, ("cart", [(1, 1)])),
        resized=xml(good, size=(40, 24)),
        torn=xml(good)[:-20],
        bare=xml(good).replace("<tag>background</tag>", ""),
        empty=xml(good, ("cat", [])),
        letters=xml(good, ("cat", [(1, "two"), (3, "nan")])),
        half=xml(good).replace("<Y>3</Y>", ""),
        width=xml(good).replace("<width>20<", "<width>-3<"),
        entity=xml(good, head='<!DOCTYPE a [<!ENTITY b "cat">]>'),
    )
    Image.new("RGB", (20, 12)).save(root / "images" / "alone.png")
    told = source(root).check()
    expected = [
        "strokes of two classes lie on the same pixels: 1x: strokes/cross.xml (cat and sofa: x=4 y=1, x=5 y=1, x=6 y=1 "
        "and 6 more). Mend them, make stroke_width smaller, or set data.contradictions to ignore",
        "points of strokes lie outside the image: 1x: strokes/far.xml (x=-1 y=3, x=4 y=12, x=20 y=0 and 1 more; the "
        "image is 20x12)",
        "the tag 'cart' is not in the class table: 2x: strokes/names.xml, strokes/names2.xml. Did you mean 'cat'? Set "
        "data.tags to {cart: <class>}, or to {cart: null} to leave its strokes out",
        "the tag 'tree' is not in the class table: 1x: strokes/names.xml. Known names: background, cat, sofa. Set",
        "the strokes were drawn on an image of another size: 1x: strokes/resized.xml (40x24, the image is 20x12)",
        "the file is no sound XML: 1x: strokes/torn.xml (",
        "a stroke has no tag: 1x: strokes/bare.xml (stroke 1)",
        "a stroke has no point: 1x: strokes/empty.xml (stroke 2)",
        "a point's coordinates are no numbers: 2x: strokes/half.xml (stroke 1, x=9, y=missing), strokes/letters.xml "
        "(stroke 2, x=1, y=two)",
        "the size of the image is no pair of numbers: 1x: strokes/width.xml (width=-3, height=12)",
        "the file declares a document type, which may hide entities: 1x: strokes/entity.xml. Remove the <!DOCTYPE ...>",
        "images without mask: 1x: images/alone.png",
    ]
    for beginning in expected:
        assert sum(line.startswith(beginning) for line in told) == 1, (beginning, told)
    assert len(told) == len(expected)
    for name in ("cross", "far", "names", "resized", "torn", "bare", "empty", "letters", "half", "width", "entity"):
        with pytest.raises(DataError, match=f"strokes/{name}.xml"):
            source(root).load(name)


def test_entities_are_refused_before_they_grow(write):
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    file = '<!DOCTYPE a [<!ENTITY i SYSTEM "file:///etc/hostname">'
    for head in (bomb, file):
        root = write(a=xml(("&i;", [(1, 1)]), head=head + "]>").replace("&amp;", "&"))
        (line,) = source(root).check()
        assert line.startswith("the file declares a document type")
    root = write(a=xml(("&nbsp;", [(1, 1)])).replace("&amp;", "&"))
    (line,) = source(root).check()
    assert "undefined entity" in line


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x01",
        b"not xml",
        "<annotation>".encode("utf-16"),
        b'<?xml version="1.0" encoding="none"?><a/>',
        b"<a/><b/>",
    ],
)
def test_what_is_no_xml_is_told(content, write):
    (line,) = source(write(a=content)).check()
    assert line.startswith("the file is no sound XML: 1x: strokes/a.xml (")


def test_huge_files_and_numbers_are_refused(write):
    (line,) = source(write(a=b" " * (MAX_BYTES + 1))).check()
    assert line.startswith("the file is larger than 4 MiB: 1x: strokes/a.xml")
    for number in ("9" * 400, "1e30", "-inf"):
        (line,) = source(write(a=xml(("cat", [(number, 1)]))), outside="clip").check()
        assert line.startswith("a point's coordinates are no numbers")
    (line,) = source(write(a=xml(("cat", [(1, 1), (2_000_000_000, 1)]))), outside="clip").check()
    assert line.startswith("points of strokes lie outside the image: 1x: strokes/a.xml (x=2000000000 y=1; the image is")
    assert "further away than the image is large" in line


def test_any_other_encoding_that_the_file_declares_is_read(write):
    labels = LabelSpace({0: "Straße", 1: "chat & chien"})
    text = xml(("Straße", [(1, 1)]), (" chat & chien\n", [(9, 9)]), head='<?xml version="1.0" encoding="latin-1"?>')
    mask = source(write(a=text.encode("latin-1")), labels).load("a").mask
    assert (mask[1, 1], mask[9, 9]) == (0, 1)


# ---------------------------------------------------------------------- options


def test_contradicting_pixels_may_be_ignored_but_never_silently(write):
    root = write(a=xml(("cat", [(2, 2), (8, 2)]), ("sofa", [(5, 0), (5, 6)])))
    drawn = source(root, contradictions="ignore", stroke_width=1)
    survey = drawn.survey()
    assert survey.problems == []
    assert [str(note) for note in survey.notes] == [
        "strokes of two classes lie on the same pixels: 1x: strokes/a.xml (cat and sofa: x=5 y=2). Such pixels are "
        "ignored, as data.contradictions asks."
    ]
    mask = drawn.load("a").mask
    assert (mask[2, 5], mask[2, 4], mask[3, 5]) == (255, 3, 8)


def test_points_outside_may_be_cut_but_never_silently(write):
    root = write(a=xml(("cat", [(15, 2), (22, 2)]), ("sofa", [(5, 11), (5, 13)])))
    drawn = source(root, outside="clip", stroke_width=1)
    survey = drawn.survey()
    assert survey.problems == []
    assert [str(note) for note in survey.notes] == [
        "points of strokes lie outside the image: 1x: strokes/a.xml (x=22 y=2, x=5 y=13). What lies outside is cut "
        "off, as data.outside asks."
    ]
    mask = drawn.load("a").mask
    assert (mask[2, 15:] == 3).all()
    assert np.argwhere(mask == 8).tolist() == [[11, 5]]


def test_tags_may_be_called_otherwise_or_left_out(write):
    root = write(a=xml(("kitty", [(1, 1)]), ("sky", [(5, 5), (500, 5)]), ("sofa", [(9, 9)])))
    mask = source(root, stroke_width=1, tags={"kitty": "cat", "sky": None}).load("a").mask
    assert set(np.unique(mask)) == {3, 8, 255}
    with pytest.raises(ConfigError, match=r"data.tags.kitty: 'cart' is no class. Did you mean 'cat'"):
        source(root, tags={"kitty": "cart"})


def test_classes_that_share_a_name_cannot_be_told_by_it(write):
    with pytest.raises(ConfigError, match="ids 1 and 4 share the name 'cat'"):
        source(write(), LabelSpace({1: "cat", 4: "cat"}))


def test_the_names_of_scribblesup_come_with_the_line_to_write(write):
    root = write(a=xml(("plane", [(1, 1)]), ("background", [(9, 9)])))
    (line,) = source(root, LabelSpace.from_config("voc21")).check()
    assert line.endswith(
        "ScribbleSup calls classes of VOC in its own way: set data.tags to {plane: aeroplane, bike: bicycle, "
        "table: dining table, plant: potted plant, monitor: tv monitor}."
    )
    tags = {"plane": "aeroplane", "table": "dining table"}
    assert source(root, LabelSpace.from_config("voc21"), tags=tags).check() == []


def test_unknown_tags_are_left_out_where_the_generator_asks(write):
    root = write(a=xml(("tree", [(1, 1)]), ("cat", [(9, 9)]), ("sofa", [(15, 3)])))
    context = BuildContext(root, LABELS, Registry(), ignore_unknown_ids=True)
    drawn = context.build("source", "scribblesup", {"images": "images", "annotations": "strokes"}, where="data")
    survey = drawn.survey()
    assert survey.problems == []
    (note,) = map(str, survey.notes)
    assert note.startswith("the tag 'tree' is not in the class table: 1x: strokes/a.xml. Its strokes are left out")
    assert set(np.unique(drawn.load("a").mask)) == {3, 8, 255}


def test_a_torn_image_is_told_beside_what_is_wrong_with_its_strokes(write):
    root = write(a=xml(("tree", [(1, 1)])), b=xml(("cat", [(1, 1)]), size=None))
    for name in "ab":
        (root / "images" / f"{name}.jpg").write_bytes(b"torn")
    told = source(root).check()
    assert [line.split(":")[0] for line in told] == [
        "the file cannot be read",
        "the tag 'tree' is not in the class table",
        "the image of the strokes cannot be read",
    ]


def test_a_recipe_builds_it_and_a_list_chooses(write):
    root = write(a=xml(("cat", [(1, 1)])), b=xml(("sofa", [(1, 1)])), c=b"torn")
    (root / "use.txt").write_text("b\na\n")
    data = {"format": "scribblesup", "images": "images", "annotations": "strokes", "labeled": "use.txt"}
    recipe = load_recipe({"labels": dict(LABELS.names), "data": data}, root=root)
    drawn = recipe.source()
    assert list(drawn.ids()) == ["b", "a"]
    assert drawn.check() == []
    for wrong in (
        "data.stroke_width=0",
        "data.stroke_width=99",
        "data.origin=2",
        "data.contradictions=last",
        "data.tag=1",
    ):
        with pytest.raises(ConfigError, match=wrong.split("=")[0]):
            load_recipe({"labels": dict(LABELS.names), "data": data}, [wrong], root=root)
    assert SimpleNamespace(**recipe.resolved()["data"]).stroke_width == 3
