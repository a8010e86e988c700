"""The random crop lies in the image, has the area and the ratio that are asked for, and the
distribution of MindSpore's."""

import io

import mindspore.dataset as ds
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore.dataset import vision
from PIL import Image
from scipy import stats

from sknet.data.reading.crop_box import NUM_DRAWS, CropBox, crop_box
from sknet.data.reading.draws import draws
from sknet.data.reading.threads import read_pipeline

SCALE, RATIO = (0.08, 1.0), (0.75, 1.333)
SIDES = st.integers(1, 3000)
NUM_CROPS = 1500


@given(SIDES, SIDES, st.integers(0, 1 << 30))
def test_crop_lies_in_the_image(height: int, width: int, position: int) -> None:
    numbers = draws("crop", 1, 0, position, position + 1, NUM_DRAWS)[0].tolist()
    top, left, crop_height, crop_width = crop_box(height, width, SCALE, RATIO, numbers)
    assert 0 <= top <= top + crop_height <= height
    assert 0 <= left <= left + crop_width <= width
    assert min(crop_height, crop_width) >= 1


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (100, 1000, CropBox(0, 433, 100, 133)),
        (1000, 100, CropBox(433, 0, 133, 100)),
        (1, 1000, CropBox(0, 499, 1, 1)),
        (100, 100, CropBox(0, 0, 100, 100)),
    ],
)
def test_the_largest_centre_is_taken_where_no_attempt_fits(
    height: int, width: int, expected: CropBox
) -> None:
    # The largest number makes every attempt as large as the image and as wide as the range allows.
    numbers = [np.nextafter(1, 0)] * NUM_DRAWS
    assert crop_box(height, width, (1.0, 1.0), RATIO, numbers) == expected


def test_crops_have_the_distribution_of_mindspores() -> None:
    height, width = 200, 256
    # Red tells the column of a pixel, green its row.
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([columns, rows, rows * 0], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    content = np.frombuffer(buffer.getvalue(), np.uint8)

    def make() -> object:
        ds.config.set_seed(5)
        data = ds.NumpySlicesDataset([content] * NUM_CROPS, ["image"], shuffle=False)
        crop = vision.RandomCropDecodeResize(300, SCALE, RATIO, vision.Inter.NEAREST)
        return data.map(crop, "image").create_tuple_iterator(num_epochs=1, output_numpy=True)

    theirs = np.array([_box_of(cropped) for (cropped,) in read_pipeline(make)])
    numbers = draws("crop", 5, 0, 0, NUM_CROPS, NUM_DRAWS).tolist()
    ours = np.array([crop_box(height, width, SCALE, RATIO, row) for row in numbers])
    for name, mine, other in zip(CropBox._fields, ours.T, theirs.T, strict=True):
        assert stats.ks_2samp(mine, other).pvalue > 1e-3, name
    areas = ours[:, 2] * ours[:, 3] / (height * width)
    assert stats.ks_2samp(areas, theirs[:, 2] * theirs[:, 3] / (height * width)).pvalue > 1e-3


def _box_of(cropped: np.ndarray) -> tuple[int, int, int, int]:
    """Return the crop of an image whose pixels tell where they are from."""
    (left, top), (right, bottom) = cropped[0, 0, :2].tolist(), cropped[-1, -1, :2].tolist()
    return top, left, bottom - top + 1, right - left + 1
