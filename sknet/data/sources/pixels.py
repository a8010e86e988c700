"""Raw pixels as an encoded image."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image


def grey_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A lossless image of grey pixels (height, width)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
