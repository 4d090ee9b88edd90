"""Label Studio's run-length encoding of brush masks (rle-pack: github.com/thi-ng/umbrella), bounded and in numpy.

A bit stream: 32 bits number of values, 5 bits word size - 1, four times 4 bits run size - 1; then blocks of 1 bit
"run or literal", 2 bits which run size, that many bits length - 1, and one word (run) or `length` words (literal).
The values are an RGBA picture, row by row; its alpha is the mask. The SDK's own functions agree (tests compare them),
but importing them takes seconds (OpenCV, pandas), and they trust the stream.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 2_000_000
MAX_PIXELS = 4096 * 4096
_RUN_BITS = (3, 4, 8, 16)
_WORD_BITS = 8


class BadEncoding(ValueError):
    """The stream is not a mask of the size it should have."""


def encode_mask(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a mask [H, W] as Label Studio's `value.rle`: bytes as integers."""
    values = np.where(mask.ravel(), 255, 0).astype(np.uint8)
    bits = [f"{values.size * 4:032b}{_WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _RUN_BITS)]
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] ^ 255))
    for start, end in zip(starts, [*starts[1:], values.size], strict=True):
        word, length = f"{values[start]:0{_WORD_BITS}b}", int(end - start) * 4  # red, green, blue and alpha are equal
        while length:
            block = min(length, 1 << _RUN_BITS[-1])
            which = next(index for index, size in enumerate(_RUN_BITS) if block <= 1 << size)
            bits.append(f"1{which:02b}{block - 1:0{_RUN_BITS[which]}b}{word}")
            length -= block
    text = "".join(bits)
    stream = np.frombuffer(text.encode("ascii"), dtype=np.uint8) - ord("0")
    return [int(byte) for byte in np.packbits(stream)]


def decode_mask(rle: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Decode `value.rle` into a mask [height, width]: where alpha is above zero.

    Raises:
        BadEncoding: It is too long, not made of bytes, cut off, or of another size. Memory stays bounded by the size
            asked for and time by the length of the stream.
    """
    if not 0 < height * width <= MAX_PIXELS or height < 0:
        raise BadEncoding(f"a picture of {width} by {height} pixels cannot be")
    if len(rle) > MAX_BYTES:
        raise BadEncoding(f"it has {len(rle):,} bytes, more than {MAX_BYTES:,}")
    try:
        data = bytes(rle)
    except (TypeError, ValueError) as error:
        raise BadEncoding("it is not a list of bytes") from error
    reader = _Bits(data)
    count = reader.read(32)
    if count != height * width * 4:
        raise BadEncoding(
            f"it holds {count:,} values where {width} by {height} RGBA pixels need {height * width * 4:,}"
        )
    word = reader.read(5) + 1
    if word != _WORD_BITS:
        raise BadEncoding(f"its words have {word} bits instead of 8")
    sizes = [reader.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=np.uint8)
    position = 0
    while position < count:
        is_run = reader.read(1)
        length = reader.read(sizes[reader.read(2)]) + 1
        if position + length > count:
            raise BadEncoding("a run goes beyond the picture")
        values[position : position + length] = reader.read(word) if is_run else reader.read_bytes(length)
        position += length
    return values.reshape(height, width, 4)[:, :, 3] > 0


class _Bits:
    """Reads big-endian numbers of up to 32 bits from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def read(self, bits: int) -> int:
        first, offset = divmod(self._position, 8)
        last = (self._position + bits + 7) // 8
        if last > len(self._data):
            raise BadEncoding("it is cut off")
        self._position += bits
        number = int.from_bytes(self._data[first:last], "big")
        return number >> ((last - first) * 8 - offset - bits) & ((1 << bits) - 1)

    def read_bytes(self, count: int) -> NDArray[np.uint8]:
        first, offset = divmod(self._position, 8)
        last = (self._position + count * 8 + 7) // 8
        if last > len(self._data):
            raise BadEncoding("it is cut off")
        self._position += count * 8
        bits = np.unpackbits(np.frombuffer(self._data[first:last], dtype=np.uint8))
        return np.packbits(bits[offset : offset + count * 8])
