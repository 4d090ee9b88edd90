"""Brush masks: our encoder and decoder, between themselves and against Label Studio's SDK."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labeling.labelstudio.rle import BadEncoding, decode_mask, encode_mask

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(masks)
def test_decoding_what_was_encoded_gives_the_mask(mask):
    assert np.array_equal(decode_mask(encode_mask(mask), *mask.shape), mask)


@settings(max_examples=25, deadline=None)
@given(masks)
def test_label_studios_sdk_reads_what_we_write(mask):
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    decoded = brush.decode_rle(encode_mask(mask)).reshape(*mask.shape, 4)[:, :, 3] > 0
    assert np.array_equal(decoded, mask)


@settings(max_examples=25, deadline=None)
@given(masks)
def test_we_read_what_label_studios_sdk_writes(mask):
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    assert np.array_equal(decode_mask(brush.mask2rle(mask.astype(np.uint8) * 255), *mask.shape), mask)


def test_a_run_longer_than_the_longest_block_is_split():
    mask = np.zeros((512, 512), bool)
    mask[100:400, 100:400] = True
    assert np.array_equal(decode_mask(encode_mask(mask), 512, 512), mask)
    full = np.ones((700, 700), bool)
    assert np.array_equal(decode_mask(encode_mask(full), 700, 700), full)


@given(st.lists(st.integers(-1, 300), max_size=60), st.integers(-2, 9), st.integers(-2, 9))
def test_junk_is_refused_and_never_breaks_anything_else(rle, height, width):
    try:
        mask = decode_mask(rle, height, width)
    except BadEncoding:
        return
    assert mask.shape == (height, width)


@given(masks, st.data())
def test_a_cut_stream_is_refused(mask, data):
    rle = encode_mask(mask)
    cut = data.draw(st.integers(0, len(rle) - 2))
    with pytest.raises(BadEncoding):
        decode_mask(rle[:cut], *mask.shape)


def test_a_stream_that_claims_a_huge_picture_is_refused_before_memory_is_taken():
    bomb = [0xFF, 0xFF, 0xFF, 0xFC, *encode_mask(np.ones((2, 2), bool))[4:]]
    with pytest.raises(BadEncoding, match="holds 4,294,967,292 values"):
        decode_mask(bomb, 2, 2)
    with pytest.raises(BadEncoding, match="cannot be"):
        decode_mask(bomb, 40_000, 40_000)
    with pytest.raises(BadEncoding, match="more than"):
        decode_mask([0] * 2_000_001, 2, 2)
