"""Which of many images are copies of each other, found without comparing all with all.

The bits of a perceptual hash are cut into four parts. Hashes that differ in at most seven bits have
a part that differs in at most one, so it is enough to compare the images that share a part, but for
one bit. Of these, only those of nearly the same brightness are compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sknet.data.copies.fingerprint import FINGERPRINT, MIRROR, NUM_COEFFICIENTS

MAX_DIFFERING_BITS = 10
"""Hashes of copies differ in no more bits. Those that differ in 8 to 10 are found most times."""

# Measured by tests/bench/bench_copies.py on tiles of real photographs; docs/data.md has the table.
CLOSE_DISTANCE = 0.2
"""Largest root mean square of the differences of coefficients (-1 to 1) between an image and one
that is resized, mirrored or encoded anew."""
CLOSE_COLOUR = 4
"""Largest difference of their mean red, green or blue, 0 to 255."""
CROP_DISTANCE = 0.6
"""The largest one between an image and one that is cropped or brightened a little."""
CROP_COLOUR = 16
CROP_CONTRAST = 15
"""Standard deviation of grey levels below which crops can't be told from other images."""

BRIGHTNESS_WINDOW = CROP_COLOUR * 256
MAX_PARTNERS = 256
"""Images of nearest brightness with which one is compared, for each part of its hash. Only among
many images that look alike, such as the frames of a film, are there more."""

CHUNK = 1 << 20
"""Pairs that are compared at once."""
MAX_CROPS = 1 << 22
"""If more pairs look like crops, crops can't be told from other images."""
LEAST_DENSITY = 1 / 3
"""Least share of the pairs in a group of crops that look like crops themselves. In data sets whose
images are all alike, such as large digits, chains of such pairs lead from each image to each other.
"""
ALIKE_FROM = 100
"""From this many images on, looks are no evidence if half of all images would be one group."""

_MASKS = (0, *(1 << bit for bit in range(16)))
_NUM_BITS = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)

Indices = npt.NDArray[np.int64]
Fingerprints = npt.NDArray[np.void]


@dataclass(frozen=True)
class Copies:
    """The groups of copies among some images."""

    groups: tuple[tuple[int, ...], ...]
    """Positions of the images of each group, ascending; groups by their first image."""
    alike: bool = False
    """Whether more than half of the images look alike, so that only equal bytes were taken for
    copies."""


def find_copies(sha256s: Sequence[str], fingerprints: Sequence[bytes]) -> Copies:
    """Group images that show the same.

    Args:
        sha256s: SHA-256 of each encoded image.
        fingerprints: Fingerprint of each; empty if it has none.
    """
    first_of: dict[str, int] = {}
    firsts = [first_of.setdefault(sha256, each) for each, sha256 in enumerate(sha256s)]
    graph = _Graph(len(sha256s))
    graph.join(np.array(firsts, np.int64), np.arange(len(sha256s)))
    looks = np.array([each for each in first_of.values() if fingerprints[each]], np.int64)
    alike = False
    if len(looks) > 1:
        prints = np.frombuffer(b"".join(fingerprints[each] for each in looks), FINGERPRINT)
        labels = _labels_by_looks(prints)
        alike = len(looks) >= ALIKE_FROM and 2 * int(np.bincount(labels).max()) > len(looks)
        if not alike:
            _, representatives = np.unique(labels, return_index=True)
            graph.join(looks[representatives][labels], looks)
    return Copies(_members(graph.labels()), alike)


def _labels_by_looks(prints: Fingerprints) -> Indices:
    """Return the number of each image's group, from 0 on."""
    close = _Graph(len(prints))
    crops: list[tuple[Indices, Indices]] = []
    num_crops = 0
    for one, other, is_mirrored in _candidates(prints):
        is_close, is_crop = _compare(prints, one, other, is_mirrored=is_mirrored)
        close.join(one[is_close], other[is_close])
        if num_crops <= MAX_CROPS:
            crops.append((one[is_crop], other[is_crop]))
            num_crops += int(is_crop.sum())
    labels = close.labels()
    if not 0 < num_crops <= MAX_CROPS:
        return labels
    one, other = (labels[np.concatenate(ends)] for ends in zip(*crops, strict=True))
    return _dense_groups(one, other, int(labels.max()) + 1)[labels]


def _dense_groups(one: Indices, other: Indices, num_nodes: int) -> Indices:
    """Return the group of each node, in which a large share of the pairs are among those given."""
    pairs = np.unique(np.sort(np.stack([one, other], axis=1), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    graph = _Graph(num_nodes)
    graph.join(pairs[:, 0], pairs[:, 1])
    labels = graph.labels()
    sizes = np.bincount(labels)
    is_dense = np.bincount(labels[pairs[:, 0]], minlength=len(sizes)) >= (
        LEAST_DENSITY * sizes * (sizes - 1) / 2
    )
    kept = pairs[is_dense[labels[pairs[:, 0]]]]
    dense = _Graph(num_nodes)
    dense.join(kept[:, 0], kept[:, 1])
    return dense.labels()


def _candidates(prints: Fingerprints) -> Iterator[tuple[Indices, Indices, bool]]:
    """Yield pairs of images with similar hashes, and whether one of them is as in a mirror.

    A pair may come more than once. Memory is proportional to the number of images.
    """
    bright = prints["brightness"].astype(np.int64)
    hashes, mirrored = prints["hash"].copy(), prints["mirrored"].copy()
    for part in range(4):
        values = _part(hashes, part)
        keys = values << 16 | bright
        order = np.argsort(keys, kind="stable")
        in_order = keys[order]
        for is_mirrored, asking_hashes in ((False, hashes), (True, mirrored)):
            asked = _part(asking_hashes, part)
            # Neighbouring searches in neighbouring places are much faster than in any order.
            asking = np.argsort(asked << 16 | bright, kind="stable")
            for mask in _MASKS:
                # Without a mirror, each of two images would find the other.
                half = asking[asked[asking] & mask == 0] if mask and not is_mirrored else asking
                wanted = (asked[half] ^ mask) << 16
                low, high = _nearest(in_order, wanted, bright[half])
                for rows, places in _runs(low, high):
                    one, other = half[rows], order[places]
                    # In a mirror, each finds the other.
                    kept = one < other if is_mirrored else one != other
                    one, other = one[kept], other[kept]
                    differing = (asking_hashes[one] ^ hashes[other]).view("<u2").reshape(-1, 4)
                    is_similar = _NUM_BITS[differing].sum(axis=1) <= MAX_DIFFERING_BITS
                    yield one[is_similar], other[is_similar], is_mirrored


def _part(hashes: npt.NDArray[np.uint64], part: int) -> Indices:
    """Return 16 of the 64 bits of each hash."""
    return (hashes >> np.uint64(16 * part) & np.uint64(0xFFFF)).astype(np.int64)


def _nearest(in_order: Indices, wanted: Indices, bright: Indices) -> tuple[Indices, Indices]:
    """Return the range of the sorted keys whose images have a wanted part and nearly a brightness.

    Ranges are cut to the MAX_PARTNERS nearest of them.
    """
    darkest = np.maximum(bright - BRIGHTNESS_WINDOW, 0)
    brightest = np.minimum(bright + BRIGHTNESS_WINDOW, 0xFFFF)
    low = np.searchsorted(in_order, wanted + darkest, "left")
    high = np.searchsorted(in_order, wanted + brightest, "right")
    wide = np.flatnonzero(high - low > MAX_PARTNERS)
    if len(wide):
        middle = np.searchsorted(in_order, wanted[wide] + bright[wide])
        low[wide] = np.maximum(low[wide], middle - MAX_PARTNERS // 2)
        high[wide] = np.minimum(high[wide], middle + MAX_PARTNERS // 2)
    return low, high


def _runs(low: Indices, high: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yield (row, place) for each place in range(low[row], high[row]), about CHUNK at once."""
    counts = high - low
    total = np.concatenate([[0], np.cumsum(counts)])
    bounds = np.searchsorted(total, np.arange(0, total[-1], CHUNK)).tolist()
    for start, stop in pairwise([*bounds, len(counts)]):
        rows = np.repeat(np.arange(start, stop), counts[start:stop])
        if len(rows):
            yield rows, np.arange(total[start], total[stop]) - total[rows] + low[rows]


def _compare(
    prints: Fingerprints, one: Indices, other: Indices, *, is_mirrored: bool
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which pairs look the same but for size and encoding, and which but for their edges."""
    a, b = prints[one], prints[other]
    coefficients = a["coefficients"].astype(np.int16)
    if is_mirrored:
        coefficients *= MIRROR
    difference = (coefficients - b["coefficients"]).astype(np.float32) / 127
    distance = np.sqrt((difference**2).sum(axis=1) / NUM_COEFFICIENTS)
    colour = np.abs(a["colour"].astype(np.int16) - b["colour"]).max(axis=1, initial=0)
    contrast = np.minimum(a["contrast"], b["contrast"])
    is_close = (distance <= CLOSE_DISTANCE) & (colour <= CLOSE_COLOUR)
    # The halves of a face or a wheel mirror each other nearly as well as a crop does.
    is_crop = (distance <= CROP_DISTANCE) & (colour <= CROP_COLOUR) & (contrast >= CROP_CONTRAST)
    return is_close, is_crop & (not is_mirrored)


class _Graph:
    """The groups that pairs form (union-find). Pairs are forgotten once they are counted in."""

    def __init__(self, num_nodes: int) -> None:
        self._labels = np.arange(num_nodes)
        self._pairs: list[tuple[Indices, Indices]] = []
        self._num_pairs = 0

    def join(self, one: Indices, other: Indices) -> None:
        """Put the two nodes of each pair into one group."""
        self._pairs.append((one, other))
        self._num_pairs += len(one)
        if self._num_pairs > max(CHUNK, len(self._labels)):
            self.labels()

    def labels(self) -> Indices:
        """Return the number of each node's group, from 0 on."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if self._num_pairs:
            ends = [self._labels[np.concatenate(each)] for each in zip(*self._pairs, strict=True)]
            size = len(self._labels)
            graph = coo_array((np.ones(len(ends[0]), bool), ends), shape=(size, size))
            self._labels = connected_components(graph, directed=False)[1][self._labels]
            _, self._labels = np.unique(self._labels, return_inverse=True)
        self._pairs, self._num_pairs = [], 0
        return self._labels


def _members(labels: Indices) -> tuple[tuple[int, ...], ...]:
    """Return the positions of each group of at least two."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return tuple(sorted(tuple(group.tolist()) for group in groups if len(group) > 1))
