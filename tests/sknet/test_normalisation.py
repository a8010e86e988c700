"""Bytes become numbers about zero: exactly those of the definition, and MindSpore's own."""

from fractions import Fraction

import numpy as np
from mindspore.dataset import vision

from sknet.data.reading.batch_operations import normalise

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Every byte in every channel of two images of 8 x 32.
IMAGES = np.stack([np.arange(256, dtype=np.uint8).reshape(8, 32)] * 6).reshape(2, 3, 8, 32)


def test_every_byte_has_the_nearest_float_of_each_step() -> None:
    normalised = normalise(IMAGES, MEAN, STD)
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        mean_32, std_32 = np.float32(mean), np.float32(std)
        for byte in range(256):
            difference = np.float32(float(Fraction(byte) - Fraction(float(mean_32))))
            quotient = np.float32(float(Fraction(float(difference)) / Fraction(float(std_32))))
            where = IMAGES[:, channel] == byte
            assert (normalised[:, channel][where] == quotient).all()


def test_is_what_mindspore_computes_within_rounding() -> None:
    theirs = vision.Normalize(list(MEAN), list(STD), is_hwc=False)
    normalised = normalise(IMAGES, MEAN, STD)
    for image, ours in zip(IMAGES, normalised, strict=True):
        np.testing.assert_allclose(ours, theirs(image), rtol=0, atol=5e-7)


def test_leaves_its_input_and_gives_contiguous_float32() -> None:
    before = IMAGES.copy()
    normalised = normalise(IMAGES, MEAN, STD)
    assert normalised.dtype == np.float32
    assert normalised.flags.c_contiguous
    np.testing.assert_array_equal(IMAGES, before)
