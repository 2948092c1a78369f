"""Arrays to the bytes of picture files."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import PIL.Image

from genaug.labels import LabelSpace, default_color
from genaug.store.files import SOURCE_TYPE, encode_image
from genaug.types import Image, Mask

Format = Literal["png", "jpg"]

# JPEG's form of the mark that `genaug.store.files.encode_image` puts into PNG files.
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta>'
)


def picture_bytes(image: Image, form: Format, quality: int, *, synthetic: bool) -> bytes:
    """Encode uint8 ``[H, W, 3]``; synthetic pictures say so in their XMP data."""
    if form == "png" and synthetic:
        return encode_image(image)
    buffer = io.BytesIO()
    if form == "png":
        PIL.Image.fromarray(image).save(buffer, "PNG")
    else:
        mark = {"xmp": _XMP.encode()} if synthetic else {}
        # Chroma at full resolution: at 4:2:0 thin coloured things bleed over the edges of their masks.
        PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0, **mark)
    return buffer.getvalue()


def palette_mask_bytes(mask: Mask, labels: LabelSpace) -> bytes:
    """Encode uint8 ``[H, W]`` as an 8-bit palette PNG: indices are ids, colours are the class table's or VOC's."""
    colors = np.array([labels.colors.get(i) or default_color(i) for i in range(256)], dtype=np.uint8)
    picture = PIL.Image.fromarray(mask)
    picture.putpalette(colors.tobytes())  # a gray picture keeps its numbers as indices
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", bits=8)
    return buffer.getvalue()
