import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from uhman_jax.shards import quantize

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)


def features(elements):
    return hnp.arrays(np.float32, SHAPES, elements=elements)


# Any finite value, and channels that hardly vary around a large one, where rounding bites.
CLIPS = st.one_of(
    features(FINITE),
    features(st.floats(-2, 2, width=32)),
    features(st.integers(0, 600).map(lambda n: np.float32(1 + n * 2.0**-21))),
    features(st.integers(0, 300).map(lambda n: np.float32(n * 2.0**-126))),
    features(st.integers(0, 255).map(lambda n: np.float32(3 - n * 1.001 * 2.0**-20))),
)


@given(CLIPS)
def test_codes_survive_a_round_trip(features_FMC):
    first = quantize.encode(features_FMC)
    again = quantize.encode(quantize.decode(first))
    np.testing.assert_array_equal(again.codes_FMC, first.codes_FMC)


@given(CLIPS)
def test_error_is_half_a_step_plus_rounding(features_FMC):
    quantized = quantize.encode(features_FMC)
    assert np.isfinite(quantized.scale_C).all() and np.isfinite(quantized.offset_C).all()
    assert quantized.codes_FMC.dtype == np.uint8 and quantized.scale_C.dtype == np.float32
    error_FMC = np.abs(quantize.decode(quantized).astype(np.float64) - features_FMC)
    largest_C = np.abs(features_FMC.astype(np.float64)).max(axis=(0, 1))
    varies_C = quantized.scale_C > 0
    bound_C = np.where(
        varies_C,
        quantized.scale_C.astype(np.float64) / 2 + largest_C * 2.0**-23,
        128 * np.finfo(np.float32).tiny,
    )
    assert (error_FMC <= bound_C).all()


def test_is_unbiased():
    """YouTube-8M's pair adds 0.0078 on average in its range of 4, half a step."""
    values = np.linspace(-2, 2, 100_001, dtype=np.float32).reshape(1, -1, 1)
    quantized = quantize.encode(values)
    errors = quantize.decode(quantized).astype(np.float64) - values
    assert abs(errors.mean()) < quantized.scale_C[0] * 1e-3


def test_uses_the_whole_range_of_each_channel():
    features_FMC = np.float32([[[-1, 10], [0, 30]], [[4, 20], [1.5, 10]]])
    quantized = quantize.encode(features_FMC)
    np.testing.assert_array_equal(quantized.offset_C, [-1, 10])
    np.testing.assert_array_equal(quantized.scale_C, np.float32([5 / 255, 20 / 255]))
    # (0 + 1) / 5 * 255 = 51; (1.5 + 1) / 5 * 255 = 127.5, even neighbour 128; 20: also 127.5.
    assert quantized.codes_FMC[:, :, 0].tolist() == [[0, 51], [255, 128]]
    assert quantized.codes_FMC[:, :, 1].tolist() == [[0, 255], [128, 0]]


def test_constant_channels_and_the_extremes_of_float32_are_exact():
    features_FMC = np.full((2, 3, 2), 0.1, np.float32)
    features_FMC[:, :, 1] = np.finfo(np.float32).max * np.float32([[-1], [1]])
    quantized = quantize.encode(features_FMC)
    assert (quantized.scale_C > 0).tolist() == [False, True]
    np.testing.assert_array_equal(quantize.decode(quantized), features_FMC)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
def test_rejects_what_is_not_finite_and_says_where(bad, storage):
    features_FMC = np.zeros((2, 3, 4), np.float32)
    features_FMC[1, 2, 3] = bad
    with pytest.raises(ValueError, match=r"must be finite, got .* \(1, 2, 3\) and 1 such"):
        quantize.pack(features_FMC, storage)


@pytest.mark.parametrize(
    "shape, value, storage, message",
    [
        ((0, 3, 4), 0, "uint8", r"one value or more, got shape \(0, 3, 4\)"),
        ((1, 1, 1), np.finfo(np.float32).max, "bfloat16", "must be finite, got inf"),
    ],
)
def test_rejects_what_it_cannot_store(shape, value, storage, message):
    with pytest.raises(ValueError, match=message):
        quantize.pack(np.full(shape, value, np.float32), storage)


@pytest.mark.parametrize("storage, dtype", [("bfloat16", ml_dtypes.bfloat16), ("float32", "f4")])
def test_other_storages_hold_the_values(storage, dtype):
    features_FMC = np.linspace(-3, 5, 2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5)
    packed = quantize.pack(features_FMC, storage)
    np.testing.assert_array_equal(packed.codes_FMC, features_FMC.astype(dtype))
    np.testing.assert_array_equal(quantize.decode(packed), features_FMC.astype(dtype).astype("f4"))


@pytest.mark.parametrize("top", [1.0, 1.0 + 2.0**-15, 1.9])
def test_codes_survive_where_float32_is_coarse(top):
    """All values between extremes 1 to 999 float32 spacings apart, also across a power of 2."""
    top = np.float32(top)
    for width in range(1, 1000):
        values = top.view(np.int32) + np.arange(width + 1, dtype=np.int32) - width // 2
        features_FMC = values.view(np.float32).reshape(1, -1, 1)
        first = quantize.encode(features_FMC)
        decoded_FMC = quantize.decode(first)
        np.testing.assert_array_equal(quantize.encode(decoded_FMC).codes_FMC, first.codes_FMC)
        if width <= 127:  # each value has a code of its own
            np.testing.assert_array_equal(decoded_FMC, features_FMC)
