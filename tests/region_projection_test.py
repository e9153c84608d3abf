"""The GPU's kernels, also interpreted on a CPU, and the CPU's loop, against an einsum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhman_jax.kernels import region_projection
from uhman_jax.kernels.video_input import ChannelStatistics, VideoInput, standardise
from uhman_jax.models.layers import UserInput
from uhman_jax.models.uhman import UHMAN

V, N, C = 6, 128, 192  # two blocks of 64 rows; three of 64 channels
SLOTS = [4, 0, 4, 5, 1, 2]  # of which a CPU takes three at once


def make_operands(num_columns, num_seeds=1, seed=0):
    """(slot, codes, factor, shift) of videos and kernels; features of about unit size."""
    rng = np.random.default_rng(seed)
    factor_BC = rng.uniform(0.5, 1.5, (len(SLOTS), C)) / 74
    shift_BC = -127 * factor_BC + rng.normal(size=(len(SLOTS), C))
    video = (
        jnp.array(SLOTS),
        jnp.asarray(rng.integers(0, 256, (V, N, C), dtype=np.uint8)),
        jnp.asarray(factor_BC, jnp.float32),
        jnp.asarray(shift_BC, jnp.float32),
    )
    kernel_SJC = rng.normal(size=(num_seeds, num_columns, C)) / C**0.5
    return video, jnp.asarray(kernel_SJC, jnp.float32)


def decoded(video):
    """Features in float32, (B, N, C)."""
    slot_B, codes_VNC, factor_BC, shift_BC = video
    return codes_VNC[slot_B] * factor_BC[:, None, :] + shift_BC[:, None, :]


def curved(hidden):
    """A loss that weighs every element differently."""
    hidden = hidden.astype(jnp.float32)
    return jnp.mean(jnp.sin(hidden + jnp.arange(hidden.size).reshape(hidden.shape)))


def relative_error(got, want):
    return float(jnp.linalg.norm(got - want) / jnp.linalg.norm(want))


def check(num_columns, num_seeds, way, dtype=jnp.bfloat16, tolerance=6e-3):  # it has 8 bits
    video, kernel_SJC = make_operands(num_columns, num_seeds)

    def ours(kernel_JC):
        return region_projection.product(*video, kernel_JC, dtype, way)

    def plain(kernel_JC):
        return jnp.einsum("bnc,jc->bnj", decoded(video), kernel_JC, precision="highest")

    both = []
    for function in (ours, plain):
        hidden = jax.jit(jax.vmap(function))(kernel_SJC).astype(jnp.float32)
        slope = jax.jit(jax.vmap(jax.grad(lambda k, f=function: curved(f(k)))))(kernel_SJC)
        both.append((hidden, slope))
    assert both[0][0].shape == (num_seeds, len(SLOTS), N, num_columns)
    for got, want in zip(*both, strict=True):
        assert relative_error(got, want) < tolerance
        for one, other in zip(got, want, strict=True):
            assert relative_error(one, other) < tolerance


@pytest.mark.parametrize(
    ("num_columns", "num_seeds"), [(32, 1), (16, 1), (48, 1), (32, 3), (128, 2)]
)
@pytest.mark.parametrize(
    "way",
    [
        region_projection.INTERPRETED,
        pytest.param(region_projection.KERNELS, marks=pytest.mark.gpu),
    ],
    ids=["interpreted", "compiled"],
)
def test_the_kernels_are_the_product_and_its_gradient(way, num_columns, num_seeds):
    check(num_columns, num_seeds, way)


@pytest.mark.parametrize(("num_columns", "num_seeds"), [(32, 1), (7, 1), (16, 3)])
def test_videos_one_after_the_other_are_the_product_and_its_gradient(num_columns, num_seeds):
    check(num_columns, num_seeds, region_projection.BY_VIDEO, jnp.float32, tolerance=1e-5)
    check(num_columns, num_seeds, region_projection.BY_VIDEO, tolerance=8e-3)


@pytest.mark.parametrize("way", [region_projection.INTERPRETED, region_projection.BY_VIDEO])
def test_seeds_that_look_at_other_regions_of_the_videos(way):
    videos = [make_operands(32, seed=seed)[0] for seed in range(3)]
    _, kernel_SJC = make_operands(32, num_seeds=3)
    slot_B, _, factor_BC, shift_BC = videos[0]
    codes_SVNC = jnp.stack([codes_VNC for _, codes_VNC, _, _ in videos])

    def slope(codes_VNC, kernel_JC):
        video = slot_B, codes_VNC, factor_BC, shift_BC
        return jax.grad(lambda k: curved(region_projection.product(*video, k, jnp.bfloat16, way)))(
            kernel_JC
        )

    together = jax.jit(jax.vmap(slope))(codes_SVNC, kernel_SJC)
    for got, codes_VNC, kernel_JC in zip(together, codes_SVNC, kernel_SJC, strict=True):
        np.testing.assert_allclose(got, jax.jit(slope)(codes_VNC, kernel_JC), atol=1e-6)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_kernels_compile_for_a_gpu(num_seeds):
    video, kernel_SJC = make_operands(32, num_seeds)

    def loss(kernel_JC):
        kernels = region_projection.KERNELS
        return curved(region_projection.product(*video, kernel_JC, jnp.bfloat16, kernels))

    slope = jax.vmap(jax.grad(loss))
    text = jax.jit(slope).trace(kernel_SJC).lower(lowering_platforms=("cuda",)).as_text()
    assert "region_product" in text and "region_product_gradient" in text


def make_video(dtype=np.uint8, num_frames=2, num_channels=64):
    rng = np.random.default_rng(1)
    return VideoInput(
        jnp.asarray(rng.integers(0, 256, (5, num_frames, 64, num_channels)).astype(dtype)),
        jnp.asarray(rng.uniform(0.01, 0.02, (3, num_channels)), jnp.float32),
        jnp.zeros((3, num_channels), jnp.float32),
        jnp.ones((3, num_frames), bool),
        jnp.array([2, 2, 0]),
    )


def test_the_products_that_the_kernels_compute():
    def fit(video, shape_JC=(32, 64), dtype=jnp.bfloat16, platform="gpu"):
        return region_projection.kernels_fit(video, jnp.zeros(shape_JC), dtype, platform)

    video = make_video()
    assert fit(video)
    assert not fit(video, platform="cpu")
    assert not fit(video, dtype=jnp.float32)
    assert not fit(make_video(np.float32))
    assert not fit(make_video(num_channels=72), (32, 72))
    assert not fit(video, (24, 64))
    for size, expected in [(2**31, True), (2**31 + 2**20, False), (2**33, True)]:
        shape = (size // (2 * 64 * 64), 2, 64, 64)
        assert fit(video._replace(codes_VFMC=jax.ShapeDtypeStruct(shape, np.uint8))) == expected


def test_the_products_that_a_loop_over_videos_computes(monkeypatch):
    video = make_video(num_channels=129)
    assert region_projection.goes_by_video(video, 16, "cpu")
    assert not region_projection.goes_by_video(video, 16, "gpu")
    assert not region_projection.goes_by_video(make_video(num_channels=128), 16, "cpu")
    assert not region_projection.goes_by_video(make_video(np.float32, num_channels=129), 16, "cpu")
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert not region_projection.goes_by_video(video, 16, "cpu")


@pytest.mark.parametrize(
    ("way", "dtype", "tolerance"),
    [
        (None, jnp.float32, 1e-6),
        (region_projection.BY_VIDEO, jnp.float32, 1e-6),
        (region_projection.BY_VIDEO, jnp.bfloat16, 6e-3),
        (region_projection.INTERPRETED, jnp.bfloat16, 6e-3),
    ],
)
def test_all_ways_of_the_product_decode_equally(way, dtype, tolerance, monkeypatch):
    video, rng = make_video(), np.random.default_rng(2)
    statistics = ChannelStatistics(
        jnp.asarray(rng.normal(size=64)), jnp.asarray(rng.uniform(0.5, 2, 64))
    )
    kernel_JC = jnp.asarray(rng.normal(size=(32, 64)), jnp.float32)
    monkeypatch.setattr(region_projection, "kernels_fit", lambda *_: way is not None)
    monkeypatch.setattr(region_projection, "KERNELS", way)
    ours = region_projection.region_product(video, statistics, kernel_JC, dtype)
    assert (ours.shape, ours.dtype) == ((3, 2, 64, 32), dtype)
    in_order = VideoInput.plain(video.codes_VFMC[jnp.array([2, 2, 0])], *video[1:4])
    regions_BFMC = standardise(in_order, statistics)
    want_BFMJ = jnp.einsum("bfmc,jc->bfmj", regions_BFMC, kernel_JC, precision="highest")
    for one, want in zip(ours.astype(jnp.float32), want_BFMJ, strict=True):
        assert relative_error(one, want) < tolerance


def slopes(model, video, variables, key):
    """The gradient of a weighted sum of scores, in training."""
    ids_B = jnp.array([0, 1, 2])
    user = UserInput(ids_B, ids_B, ids_B, jnp.array([[1], [3], [5]]), jnp.ones((3, 1), bool))
    weight_BT = jnp.asarray(np.random.default_rng(3).normal(size=(3, 9)), jnp.float32)
    if variables is None:
        return model.init(key, video, user)

    def loss(params):
        how = {"deterministic": False, "rngs": {"dropout": key}}
        return jnp.sum(model.apply(variables | {"params": params}, video, user, **how) * weight_BT)

    return jax.grad(loss)(variables["params"])


@pytest.mark.parametrize("region_dropout", [0.0, 0.5])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_population_that_goes_by_video_learns_the_same(region_dropout, in_place, monkeypatch):
    sizes = {"hidden_size": 8, "num_heads": 2, "embedding_size": 4}
    model = UHMAN(9, 3, 4, 5, **sizes, region_dropout=region_dropout)
    video = make_video(num_channels=72)
    if not in_place:
        video = VideoInput.plain(video.codes_BFMC, *video[1:4])
    keys = jax.random.split(jax.random.key(0), 2)
    variables = jax.vmap(lambda key: slopes(model, video, None, key))(keys)

    def all_slopes():
        return jax.jit(jax.vmap(lambda *one: slopes(model, video, *one)))(variables, keys)

    assert region_projection.goes_by_video(video, 8, "cpu")
    ours = all_slopes()
    monkeypatch.setattr(region_projection, "goes_by_video", lambda *_: False)
    monkeypatch.setattr(region_projection, "product", None)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, all_slopes()
    )
    assert float(jnp.abs(ours["regions"]["kernel_JC"]).max()) > 1e-3


@pytest.mark.gpu
def test_a_model_on_a_gpu_gives_the_result_of_xla(monkeypatch):
    model = UHMAN(9, 3, 4, 5, hidden_size=32, embedding_size=16, dtype=jnp.bfloat16)
    video, key = make_video(), jax.random.key(0)
    variables = slopes(model, video, None, key)
    ours = jax.jit(lambda v: slopes(model, video, v, key))(variables)
    monkeypatch.setattr(region_projection, "kernels_fit", lambda *_: False)
    plain = jax.jit(lambda v: slopes(model, video, v, key))(variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.03), ours, plain)
    assert float(jnp.abs(ours["regions"]["kernel_JC"]).max()) > 0
