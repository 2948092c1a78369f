"""labelme and CVAT: shapes to masks."""

import base64
import io
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from genaug.errors import ConfigError, DataError
from genaug_formats.shapes import fill

LABELS = {0: "background", 3: "cat", 8: "sofa"}
LABELME = {"format": "labelme", "images": "photos"}
CVAT = {"format": "cvat", "images": "images", "annotations": "annotations.xml"}


def inside(points, x, y):
    """Ray casting for one point, edge by edge."""
    odd = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 <= y) != (y1 <= y) and x >= x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            odd = not odd
    return odd


@given(
    st.lists(st.tuples(st.integers(-20, 80), st.integers(-20, 60)), min_size=3, max_size=7),
    st.integers(1, 9),
    st.integers(1, 12),
)
@settings(max_examples=60)
def test_polygons_cover_the_pixels_whose_centres_they_hold(points, height, width):
    # Thirds never meet a pixel's centre, where two ways of adding up decide differently.
    points = [(x / 3 / 2, y / 3 / 2) for x, y in points]
    points = [(x + 1e-3, y + 1e-3) for x, y in points]
    expected = [[inside(points, x + 0.5, y + 0.5) for x in range(width)] for y in range(height)]
    assert fill(np.array(points), (height, width)).tolist() == expected


# ---------------------------------------------------------------------- labelme


@pytest.fixture
def labelme(tmp_path, picture, write_json):
    def write(*shapes, name="a", size=(8, 12), **told):
        picture(tmp_path / f"photos/{name}.jpg", np.zeros((*size, 3)))
        content = {"version": "5", "imageHeight": size[0], "imageWidth": size[1], "shapes": list(shapes), **told}
        write_json(tmp_path / f"photos/{name}.json", content)

    return write


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def test_labelme_shapes_are_drawn_as_labelme_draws_them(labelme, source):
    triangle, box, circle = [[1, 1], [9.4, 2], [4, 6.6]], [[5, 7], [2, 3]], [[8, 4], [8, 6]]
    labelme(shape("cat", triangle), shape("sofa", box, "rectangle"), shape("cat", circle, "circle"))
    expected = Image.new("L", (12, 8), 255)
    draw = ImageDraw.Draw(expected)
    draw.polygon([tuple(p) for p in triangle], fill=3, outline=3)
    draw.rectangle((2, 3, 5, 7), fill=8, outline=8)
    draw.ellipse((6, 2, 10, 6), fill=3, outline=3)
    np.testing.assert_array_equal(source(LABELS, **LABELME).load("a").mask, np.asarray(expected))


def test_labelme_unlabelled_is_no_class_unless_told(labelme, source):
    labelme(shape("cat", [[0, 0], [1, 1]], "rectangle"))
    corner = [[3, 3], [3, 3]]
    ignored, told = source(LABELS, **LABELME), source(LABELS, background="background", **LABELME)
    assert ignored.load("a").mask[:2, :2].tolist() == corner == told.load("a").mask[:2, :2].tolist()
    assert (ignored.load("a").mask == 255).sum() == 92 == (told.load("a").mask == 0).sum()
    with pytest.raises(ConfigError, match=r"data.background: 'backgrund' is no class.*'background'"):
        source(LABELS, background="backgrund", **LABELME)


def test_labelme_tags_are_classes_or_are_told(labelme, source):
    labelme(shape("kitten", [[0, 0], [1, 1]], "rectangle"), shape("blur", [[4, 4], [5, 5]], "rectangle"))
    with pytest.raises(DataError, match=r"the tag 'kitten' is not in the class table.*Set data.tags"):
        source(LABELS, **LABELME).load("a")
    mask = source(LABELS, tags={"kitten": "cat", "blur": None}, background="sofa", **LABELME).load("a").mask
    assert (mask[0, 0], mask[4, 4], mask[7, 7]) == (3, 255, 8)
    with pytest.raises(ConfigError, match=r"data.tags.blur: 'dog' is no class"):
        source(LABELS, tags={"blur": "dog"}, **LABELME)


def test_labelme_masks_are_pasted_at_their_corner(labelme, source):
    pixels, buffer = np.array([[1, 0], [1, 1]], dtype=bool), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    stored = base64.b64encode(buffer.getvalue()).decode()
    labelme(
        shape("cat", [[3, 2], [4, 3]], "mask", mask=stored),
        shape("sofa", [[11, 7], [12, 8]], "mask", mask=stored),
        shape("sofa", [[-1, -1], [0, 0]], "mask", mask=stored),
    )
    mask = source(LABELS, **LABELME).load("a").mask
    assert mask[2:4, 3:5].tolist() == [[3, 255], [3, 3]]
    assert (mask[7, 11], mask[0, 0], (mask != 255).sum()) == (8, 8, 5)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            shape("cat", [[0, 0], [1, 1]], "line"),
            r"a shape of type 'line' covers no area.*circle, mask, polygon, rectangle",
        ),
        (shape("cat", [[0, 0], [1, 1]]), "a polygon of 2 points"),
        (shape("cat", [[0, 0]], "circle"), "a circle of 1 points"),
        ({"points": []}, "no label or no points"),
        (shape("cat", [["x", 0]]), "no label or no points"),
        (shape("cat", [[0, math.nan]]), "no label or no points"),
        (shape("cat", [[0, 0], [1, 1]], "mask", mask="!"), "a shape's mask cannot be read"),
    ],
)
def test_labelme_shapes_that_cannot_be_drawn_are_told_with_file_and_number(labelme, source, content, told):
    labelme(shape("cat", [[0, 0], [1, 1]], "rectangle"), content)
    with pytest.raises(DataError, match=rf"photos/a.json \(shape 2\).*{told}"):
        source(LABELS, **LABELME).load("a")


def test_labelme_files_that_are_none_or_of_another_size(tmp_path, labelme, source):
    labelme(size=(8, 12), imageHeight=9)
    with pytest.raises(DataError, match=r"photos/a.json \(12x9, the image is 12x8\).*another size"):
        source(LABELS, **LABELME).load("a")
    for text in ("[]", "{", '{"shapes": 3}'):
        (tmp_path / "photos/a.json").write_text(text)
        assert source(LABELS, **LABELME).check()


# ---------------------------------------------------------------------- CVAT


@pytest.fixture
def cvat(tmp_path, picture):
    def write(*images, head="", size=(6, 10)):
        text = f'<?xml version="1.0" encoding="utf-8"?>\n{head}<annotations><version>1.1</version><meta/>\n'
        for number, (name, *shapes) in enumerate(images):
            picture(tmp_path / f"images/{name}", np.zeros((*size, 3)))
            inner = "".join(f"<{kind} {attributes}></{kind}>" for kind, attributes in shapes)
            text += f'<image id="{number}" name="{name}" width="{size[1]}" height="{size[0]}">{inner}</image>\n'
        (tmp_path / "annotations.xml").write_text(text + "</annotations>\n", "utf-8")

    return write


def test_cvat_shapes_by_order_of_depth(cvat, source):
    cvat(
        (
            "sub/b.png",
            ("box", 'label="sofa" xtl="1" ytl="1" xbr="5" ybr="4" z_order="2"'),
            ("polygon", 'label="cat" points="0,0;10,0;10,3;0,3" z_order="0"'),
            ("mask", 'label="cat" rle="1, 2, 1" left="8" top="4" width="2" height="2" z_order="0"'),
            ("tag", 'label="indoor"'),
        ),
        ("a.png",),
    )
    read = source(LABELS, **CVAT)
    assert read.ids() == ("b", "a")
    expected = np.full((6, 10), 255)
    expected[:3] = 3
    expected[1:4, 1:5] = 8
    expected[4, 9] = expected[5, 8] = 3
    np.testing.assert_array_equal(read.load("b").mask, expected)
    assert (read.load("a").mask == 255).all()
    assert any("every pixel" in str(note) for note in read.survey().notes)


def test_cvat_boxes_turn_and_ellipses_are_round(cvat, source):
    cvat(
        ("a.png", ("box", 'label="cat" xtl="2" ytl="2" xbr="8" ybr="4" rotation="90"')),
        ("b.png", ("ellipse", 'label="cat" cx="5" cy="3" rx="4" ry="2"')),
    )
    read = source(LABELS, **CVAT)
    turned = np.zeros((6, 10), bool)
    turned[0:6, 4:6] = True
    np.testing.assert_array_equal(read.load("a").mask == 3, turned)
    y, x = np.mgrid[:6, :10] + 0.5
    np.testing.assert_array_equal(read.load("b").mask == 3, ((x - 5) / 4) ** 2 + ((y - 3) / 2) ** 2 < 1)


@given(st.integers(1, 5), st.integers(1, 5), st.data())
@settings(max_examples=30)
def test_cvat_runs_start_outside_and_go_row_by_row(height, width, data):
    from genaug_formats.cvat import _mask

    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    runs, last = [0], False
    for pixel in pixels:
        if pixel != last:
            runs.append(0)
        runs[-1] += 1
        last = pixel
    rle = ", ".join(map(str, runs))
    values = {"rle": rle, "left": "1", "top": "2", "width": str(width), "height": str(height)}
    whole = _mask(values)((9, 9))
    assert whole[2 : 2 + height, 1 : 1 + width].ravel().tolist() == pixels
    assert whole.sum() == sum(pixels)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (("polyline", 'label="cat" points="0,0;1,1"'), "a <polyline> covers no area.*box, ellipse, mask, polygon"),
        (("polygon", 'label="cat" points="0,0;1,1"'), "a <polygon> cannot be understood.*fewer than three points"),
        (("polygon", 'points="0,0;1,1;2,2"'), "cannot be understood.*label"),
        (("mask", 'label="cat" rle="3" left="0" top="0" width="2" height="2"'), "runs of 3 pixels in a box of 2x2"),
        (("box", 'label="dog" xtl="1" ytl="1" xbr="5" ybr="4"'), "the tag 'dog' is not in the class table"),
    ],
)
def test_cvat_shapes_that_cannot_be_drawn_are_told(cvat, source, shape, told):
    cvat(("a.png", shape))
    (problem,) = source(LABELS, **CVAT).check()
    with pytest.raises(DataError, match=r"image a\.png"):
        source(LABELS, **CVAT).load("a")
    assert "annotations.xml, image a.png" in problem
    assert re.search(told, problem)


def test_cvat_files_that_are_none(tmp_path, cvat, source):
    cvat(("a.png",), head='<!DOCTYPE x [<!ENTITY a "b">]>')
    with pytest.raises(DataError, match="declares a document type"):
        source(LABELS, **CVAT).ids()
    for text, told in (
        ("<annotations><track/></annotations>", "no <image>.*CVAT for video"),
        ("<annotations><image/></annotations>", "an <image> cannot be understood"),
        ("<annotations><image", "cannot be read"),
        ('<annotations><image name="../a.png" width="1" height="1"/></annotations>', "cannot be understood"),
        ("nothing", "is no annotation file of CVAT"),
    ):
        (tmp_path / "annotations.xml").write_text(text)
        with pytest.raises(DataError, match=told):
            source(LABELS, **CVAT).ids()
