"""What a round trip through baseline JPEG makes of an image, without the file in between.

Entropy coding loses nothing and takes most of a codec's time, so only the rest is done here: colours, chroma at half
the size, cosine transform and quantization, and all of it back. It is the integer arithmetic of libjpeg (accurate
transform, chroma 4:2:0, triangle filter), which gives its pixels bit for bit, whatever the processor. Compiled by
numba, an optional package.

A loop's one turn is a lane of the processor's vectors. Pixels come and go four to a 32-bit word, and the transform
takes `LANES` blocks at once, each of their 64 values in its own row, so that no lane ever asks its neighbour.
"""

import sys
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy import float32, int32, uint8, uint16

from dfl.data.jpeg_header import quantization_tables

if sys.byteorder != "little":
    raise ImportError("pixels are packed into words the little-endian way")

LANES = 16  # blocks; the chroma of 256 pixels
NARROWEST = 5  # libjpeg repeats the chroma of narrower images instead of filtering it
Int = Any  # an int32
Ints = Any  # several, or an array of them

_jit = njit(nogil=True, boundscheck=False)
_inlined = njit(nogil=True, boundscheck=False, forceinline=True)


# numba makes an int64 of every sum or product of two int32, and half as many of those fit a vector: all are cut back


@_inlined
def _sum(a: Int, b: Int, c: Int = int32(0), d: Int = int32(0)) -> Int:
    return int32(int32(int32(a + b) + c) + d)


@_inlined
def _minus(a: Int, b: Int) -> Int:
    return int32(a - b)


@_inlined
def _times(a: Int, b: Int) -> Int:
    return int32(a * b)


@_inlined
def _shifted(a: Int, bits: Int) -> Int:
    return int32(a >> bits)


@_inlined
def _limited(a: Int) -> Int:
    return int32(min(max(a, int32(0)), int32(255)))


@_inlined
def _bytes(word: Int) -> Ints:
    return int32(word & 255), int32(word >> 8 & 255), int32(word >> 16 & 255), int32(word >> 24 & 255)


@_inlined
def _word(a: Int, b: Int, c: Int, d: Int) -> Int:
    return int32(int32(a | int32(b << 8)) | int32(int32(c << 16) | int32(d << 24)))


@_inlined
def _eight(x: Ints, at: Int, apart: Int) -> Ints:
    a, b, c, d = x[at], x[at + apart], x[at + 2 * apart], x[at + 3 * apart]
    e, f, g, h = x[at + 4 * apart], x[at + 5 * apart], x[at + 6 * apart], x[at + 7 * apart]
    return a, b, c, d, e, f, g, h


@_inlined
def _put(x: Ints, at: Int, apart: Int, values: Ints) -> None:
    x[at], x[at + apart], x[at + 2 * apart], x[at + 3 * apart] = values[0], values[1], values[2], values[3]
    x[at + 4 * apart], x[at + 5 * apart] = values[4], values[5]
    x[at + 6 * apart], x[at + 7 * apart] = values[6], values[7]


# The cosine transform of Loeffler, Ligtenberg and Moschytz (1989) with 13-bit fractions, as in libjpeg's accurate one


@_inlined
def _odd(a: Int, b: Int, c: Int, d: Int) -> Ints:
    """The odd half, the same in both directions."""
    all_four = _times(_sum(a, b, c, d), 9633)
    p, q = _sum(all_four, _times(_sum(b, d), -16069)), _sum(all_four, _times(_sum(a, c), -3196))
    m, n = _times(_sum(a, d), -7373), _times(_sum(b, c), -20995)
    a, b, c, d = _times(a, 12299), _times(b, 25172), _times(c, 16819), _times(d, 2446)
    return _sum(a, m, q), _sum(b, n, p), _sum(c, n, q), _sum(d, m, p)


@_inlined
def _forward(bits: Int, a: Int, b: Int, c: Int, d: Int, e: Int, f: Int, g: Int, h: Int) -> Ints:
    """Transform eight values, times 2^13 and the square root of 8, and drop bits, halves up."""
    half = int32(1 << (bits - 1))
    a0, a1, a2, a3 = _sum(a, h), _sum(b, g), _sum(c, f), _sum(d, e)
    b0, b1, b2, b3 = _odd(_minus(a, h), _minus(b, g), _minus(c, f), _minus(d, e))
    s, t, u, v = _sum(a0, a3), _sum(a1, a2), _minus(a0, a3), _minus(a1, a2)
    both = _sum(_times(_sum(u, v), 4433), half)
    return (
        _shifted(_sum(_times(_sum(s, t), 8192), half), bits),
        _shifted(_sum(b0, half), bits),
        _shifted(_sum(both, _times(u, 6270)), bits),
        _shifted(_sum(b1, half), bits),
        _shifted(_sum(_times(_minus(s, t), 8192), half), bits),
        _shifted(_sum(b2, half), bits),
        _shifted(_sum(both, _times(v, -15137)), bits),
        _shifted(_sum(b3, half), bits),
    )


@_inlined
def _backward(bits: Int, a: Int, b: Int, c: Int, d: Int, e: Int, f: Int, g: Int, h: Int) -> Ints:
    """The inverse of `_forward`, its matrix turned over."""
    half = int32(1 << (bits - 1))
    both = _times(_sum(c, g), 4433)
    u, v = _sum(both, _times(c, 6270)), _sum(both, _times(g, -15137))
    s, t = _sum(_times(_sum(a, e), 8192), half), _sum(_times(_minus(a, e), 8192), half)
    a0, a1, a2, a3 = _sum(s, u), _sum(t, v), _minus(t, v), _minus(s, u)
    b0, b1, b2, b3 = _odd(b, d, f, h)
    return (
        _shifted(_sum(a0, b0), bits),
        _shifted(_sum(a1, b1), bits),
        _shifted(_sum(a2, b2), bits),
        _shifted(_sum(a3, b3), bits),
        _shifted(_minus(a3, b3), bits),
        _shifted(_minus(a2, b2), bits),
        _shifted(_minus(a1, b1), bits),
        _shifted(_minus(a0, b0), bits),
    )


@_inlined
def _quantized(wave: Int, step: Int, inverse: Any) -> Int:
    """Eight times a coefficient, to the coefficient's nearest multiple of step; halves away from zero."""
    size = _times(int32(float32(_sum(int32(abs(wave)), _times(step, 4))) * inverse), step)
    return size if wave >= 0 else int32(-size)


@_inlined
def _centred(word: Int) -> Ints:
    a, b, c, d = _bytes(word)
    return _minus(a, 128), _minus(b, 128), _minus(c, 128), _minus(d, 128)


@_inlined
def _back_in_range(a: Int, b: Int, c: Int, d: Int) -> Int:
    return _word(_limited(_sum(a, 128)), _limited(_sum(b, 128)), _limited(_sum(c, 128)), _limited(_sum(d, 128)))


@_jit
def _rows_forward(row: Ints, lanes: Ints) -> None:
    for i in range(LANES):
        _put(lanes, i, LANES, _forward(11, *(_centred(row[2 * i]) + _centred(row[2 * i + 1]))))


@_jit
def _columns(lanes: Ints, steps: Ints, inverse: Ints) -> None:
    """Down the columns, quantized, and up again."""
    s, v = _eight(steps, 0, 8), _eight(inverse, 0, 8)
    for i in range(LANES):
        w = _forward(15, *_eight(lanes, i, 8 * LANES))
        a, b = _quantized(w[0], s[0], v[0]), _quantized(w[1], s[1], v[1])
        c, d = _quantized(w[2], s[2], v[2]), _quantized(w[3], s[3], v[3])
        e, f = _quantized(w[4], s[4], v[4]), _quantized(w[5], s[5], v[5])
        g, h = _quantized(w[6], s[6], v[6]), _quantized(w[7], s[7], v[7])
        _put(lanes, i, 8 * LANES, _backward(11, a, b, c, d, e, f, g, h))


@_jit
def _rows_backward(lanes: Ints, row: Ints) -> None:
    for i in range(LANES):
        a, b, c, d, e, f, g, h = _backward(18, *_eight(lanes, i, LANES))
        row[2 * i], row[2 * i + 1] = _back_in_range(a, b, c, d), _back_in_range(e, f, g, h)


@_jit
def _transformed(plane: Ints, steps: Ints, inverse: Ints, out: Ints) -> None:
    """A plane of words, through the transform and its quantization."""
    lanes = np.empty(64 * LANES, int32)
    for top in range(0, plane.shape[0], 8):
        for start in range(0, plane.shape[1], 2 * LANES):
            left = min(start, plane.shape[1] - 2 * LANES)  # the last takes some blocks again
            right = left + 2 * LANES
            for r in range(8):
                _rows_forward(plane[top + r, left:right], lanes[8 * LANES * r :])
            for c in range(8):
                _columns(lanes[LANES * c :], steps[c:], inverse[c:])
            for r in range(8):
                _rows_backward(lanes[8 * LANES * r :], out[top + r, left:right])


# Colours


@_inlined
def _luma(r: Int, g: Int, b: Int) -> Int:
    return _shifted(_sum(_times(r, 19595), _times(g, 38470), _times(b, 7471), 32768), 16)


@_inlined
def _cb(r: Int, g: Int, b: Int) -> Int:
    return _shifted(_sum(_times(r, -11059), _times(g, -21709), _times(b, 32768), 8421375), 16)


@_inlined
def _cr(r: Int, g: Int, b: Int) -> Int:
    return _shifted(_sum(_times(r, 32768), _times(g, -27439), _times(b, -5329), 8421375), 16)


@_inlined
def _pixels(u: Int, v: Int, w: Int) -> Ints:
    """Red, green and blue of the four pixels in three words."""
    a, b, c = _bytes(u), _bytes(v), _bytes(w)
    return (a[0], a[1], a[2]), (a[3], b[0], b[1]), (b[2], b[3], c[0]), (c[1], c[2], c[3])


@_jit
def _two_rows_in(first: Ints, second: Ints, y_first: Ints, y_second: Ints, cb: Ints, cr: Ints) -> None:
    for k in range(len(y_first)):
        a, b, c, d = _pixels(first[3 * k], first[3 * k + 1], first[3 * k + 2])
        e, f, g, h = _pixels(second[3 * k], second[3 * k + 1], second[3 * k + 2])
        y_first[k] = _word(_luma(*a), _luma(*b), _luma(*c), _luma(*d))
        y_second[k] = _word(_luma(*e), _luma(*f), _luma(*g), _luma(*h))
        left = _shifted(_sum(_cb(*a), _cb(*b), _cb(*e), _sum(_cb(*f), 1)), 2)
        right = _shifted(_sum(_cb(*c), _cb(*d), _cb(*g), _sum(_cb(*h), 2)), 2)
        cb[k] = uint16(int32(left | int32(right << 8)))
        left = _shifted(_sum(_cr(*a), _cr(*b), _cr(*e), _sum(_cr(*f), 1)), 2)
        right = _shifted(_sum(_cr(*c), _cr(*d), _cr(*g), _sum(_cr(*h), 2)), 2)
        cr[k] = uint16(int32(left | int32(right << 8)))


@_jit
def _split(image: Ints, height: int, luma: Ints, cb: Ints, cr: Ints) -> None:
    """Luma, and chroma at half the size; below the image, the last row of each again."""
    for r in range(0, image.shape[0], 2):
        rows = luma[r : r + 2]
        if r < height:
            _two_rows_in(image[r], image[r + 1], rows[0], rows[1], cb[r // 2], cr[r // 2])
            continue
        for k in range(luma.shape[1]):
            rows[0, k] = rows[1, k] = luma[r - 1, k]
            cb[r // 2, k], cr[r // 2, k] = cb[r // 2 - 1, k], cr[r // 2 - 1, k]


@_jit
def _between(near: Ints, far: Ints, out: Ints) -> None:
    """Four times the chroma of a row of pixels, as wide as it is, with its ends once more."""
    inner = out[1:]
    for k in range(len(near)):
        inner[k] = _sum(_times(int32(near[k]), 3), int32(far[k]))
    out[0], out[len(near) + 1] = out[1], out[len(near)]


@_inlined
def _spread(chroma: Ints, at: Int) -> Ints:
    """Chroma of four pixels in a row, less 128."""
    a, b, c, d = chroma[at], chroma[at + 1], chroma[at + 2], chroma[at + 3]
    left, right = _times(b, 3), _times(c, 3)
    return (
        _minus(_shifted(_sum(left, a, 8), 4), 128),
        _minus(_shifted(_sum(left, c, 7), 4), 128),
        _minus(_shifted(_sum(right, b, 8), 4), 128),
        _minus(_shifted(_sum(right, d, 7), 4), 128),
    )


@_inlined
def _pixel(y: Int, cb: Int, cr: Int) -> Ints:
    return (
        _limited(_sum(y, _shifted(_sum(_times(cr, 91881), 32768), 16))),
        _limited(_sum(y, _shifted(_sum(_times(cb, -22554), _times(cr, -46802), 32768), 16))),
        _limited(_sum(y, _shifted(_sum(_times(cb, 116130), 32768), 16))),
    )


@_jit
def _row_out(y_row: Ints, cb: Ints, cr: Ints, out: Ints) -> None:
    for k in range(len(y_row)):
        y, blue, red = _bytes(y_row[k]), _spread(cb, 2 * k), _spread(cr, 2 * k)
        a, b = _pixel(y[0], blue[0], red[0]), _pixel(y[1], blue[1], red[1])
        c, d = _pixel(y[2], blue[2], red[2]), _pixel(y[3], blue[3], red[3])
        out[3 * k] = _word(a[0], a[1], a[2], b[0])
        out[3 * k + 1] = _word(b[1], b[2], c[0], c[1])
        out[3 * k + 2] = _word(c[2], d[0], d[1], d[2])


@_jit
def _merge(luma: Ints, cb: Ints, cr: Ints, height: int, width: int, out: Ints) -> None:
    blue, red = np.zeros(2 * luma.shape[1] + 2, int32), np.zeros(2 * luma.shape[1] + 2, int32)
    rows, columns = (height + 1) // 2, (width + 1) // 2
    for r in range(height):
        near = r // 2
        far = min(max(near + (1 if r % 2 else -1), 0), rows - 1)
        _between(cb[near, :columns], cb[far, :columns], blue)
        _between(cr[near, :columns], cr[far, :columns], red)
        _row_out(luma[r], blue, red, out[r])


def _round_trip(image: Ints, height: int, width: int, steps: Ints, inverse: Any) -> Ints:
    tall, words = image.shape[0], image.shape[1] // 3
    luma, chroma = np.empty((2, tall, words), int32), np.empty((4, tall // 2, words), uint16)
    _split(image, height, luma[0], chroma[0], chroma[1])
    _transformed(luma[0], steps[0], inverse[0], luma[1])
    for i in range(2):
        _transformed(chroma[i].view(int32), steps[1], inverse[1], chroma[2 + i].view(int32))
    out = np.empty_like(image)
    _merge(luma[1], chroma[2].view(uint8), chroma[3].view(uint8), height, width, out)
    return out


try:  # kept on disk as a whole, since the parts are in it
    _compiled = njit(nogil=True, boundscheck=False, cache=True)(_round_trip)
except RuntimeError:  # no folder that numba may write to
    _compiled = _jit(_round_trip)


def inverses(steps: np.ndarray) -> np.ndarray:
    """Return 1 / (8 steps), float32, a little too large, so that multiples do not fall below their whole number."""
    return np.nextafter((1 / (8 * steps)).astype(float32), float32(1))


@lru_cache(maxsize=100)
def _tables(quality: int) -> tuple[np.ndarray, np.ndarray]:
    steps = quantization_tables(quality).astype(int32)
    return steps, inverses(steps)


def jpeg_round_trip(image: np.ndarray, quality: int) -> np.ndarray:
    """Return what encoding and decoding makes of an image.

    Args:
        image: uint8 RGB (H, W, 3), W at least `NARROWEST`.
        quality: in [1, 100], on libjpeg's scale.

    Returns:
        uint8 RGB (H, W, 3); a view where the sides are not multiples of 16.

    Raises:
        ValueError: If the image is too narrow.
    """
    height, width = image.shape[:2]
    if width < NARROWEST:
        raise ValueError(f"the image is {width} pixels wide, it must be {NARROWEST}")
    tall, wide = -(-height // 16) * 16, max(-(-width // 16) * 16, 16 * LANES)
    if (tall, wide) != (height, width):
        image = cv2.copyMakeBorder(image, 0, tall - height, 0, wide - width, cv2.BORDER_REPLICATE)
    words = np.ascontiguousarray(image).reshape(tall, 3 * wide).view(int32)
    out = _compiled(words, height, width, *_tables(quality))
    return out.view(uint8).reshape(tall, wide, 3)[:height, :width]
