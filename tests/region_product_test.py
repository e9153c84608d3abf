"""The GPU's kernels, their Python run on any machine, against an einsum of the decoded features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhman_jax import region_product
from uhman_jax.layers import UserInput, VideoInput, standardise
from uhman_jax.model import UHMAN

V, N, C = 6, 128, 192  # two blocks of 64 rows; three of 64 channels
SLOTS = [4, 0, 4, 5]


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
    """A loss that weighs every place of what it is given in another way."""
    hidden = hidden.astype(jnp.float32)
    return jnp.mean(jnp.sin(hidden + jnp.arange(hidden.size).reshape(hidden.shape)))


def relative_error(got, want):
    return float(jnp.linalg.norm(got - want) / jnp.linalg.norm(want))


def check(num_columns, num_seeds, interpret):
    video, kernel_SJC = make_operands(num_columns, num_seeds)

    def ours(kernel_JC):
        return region_product.product(*video, kernel_JC, interpret)

    def plain(kernel_JC):
        return jnp.einsum("bnc,jc->bnj", decoded(video), kernel_JC, precision="highest")

    both = []
    for function in (ours, plain):
        hidden = jax.jit(jax.vmap(function))(kernel_SJC).astype(jnp.float32)
        slope = jax.jit(jax.vmap(jax.grad(lambda k, f=function: curved(f(k)))))(kernel_SJC)
        both.append((hidden, slope))
    assert both[0][0].shape == (num_seeds, len(SLOTS), N, num_columns)
    for got, want in zip(*both, strict=True):  # bfloat16 has 8 bits
        assert relative_error(got, want) < 6e-3
        for one, other in zip(got, want, strict=True):
            assert relative_error(one, other) < 6e-3


@pytest.mark.parametrize(
    ("num_columns", "num_seeds"), [(32, 1), (16, 1), (48, 1), (32, 3), (128, 2)]
)
def test_the_kernels_are_the_product_and_its_gradient(num_columns, num_seeds):
    check(num_columns, num_seeds, interpret=True)


def test_seeds_that_look_at_other_regions_of_the_videos():
    videos = [make_operands(32, seed=seed)[0] for seed in range(3)]
    _, kernel_SJC = make_operands(32, num_seeds=3)
    slot_B, _, factor_BC, shift_BC = videos[0]
    codes_SVNC = jnp.stack([codes_VNC for _, codes_VNC, _, _ in videos])

    def slope(codes_VNC, kernel_JC):
        video = slot_B, codes_VNC, factor_BC, shift_BC
        return jax.grad(lambda k: curved(region_product.product(*video, k, True)))(kernel_JC)

    together = jax.jit(jax.vmap(slope))(codes_SVNC, kernel_SJC)
    for got, codes_VNC, kernel_JC in zip(together, codes_SVNC, kernel_SJC, strict=True):
        np.testing.assert_allclose(got, jax.jit(slope)(codes_VNC, kernel_JC), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("num_columns", "num_seeds"), [(32, 1), (16, 1), (48, 1), (32, 3), (128, 2)]
)
def test_compiled_for_a_gpu_they_are_the_same(num_columns, num_seeds):
    check(num_columns, num_seeds, interpret=False)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_kernels_compile_to_what_a_gpu_takes(num_seeds):
    video, kernel_SJC = make_operands(32, num_seeds)
    slope = jax.vmap(jax.grad(lambda k: curved(region_product.product(*video, k))))
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


def test_who_takes_the_kernels_and_who_does_not(monkeypatch):
    kernel_JC = jnp.zeros((32, 64))
    video = make_video()
    assert not region_product.fits(video, kernel_JC, jnp.bfloat16), "there is no GPU here"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert region_product.fits(video, kernel_JC, jnp.bfloat16)
    assert not region_product.fits(video, kernel_JC, jnp.float32)
    assert not region_product.fits(make_video(np.float32), kernel_JC, jnp.bfloat16)
    assert not region_product.fits(make_video(num_channels=72), jnp.zeros((32, 72)), jnp.bfloat16)
    assert not region_product.fits(video, jnp.zeros((24, 64)), jnp.bfloat16)
    for size, expected in [(2**31, True), (2**31 + 2**20, False), (2**33, True)]:
        shape = (size // (2 * 64 * 64), 2, 64, 64)
        large = video._replace(codes_BFMC=jax.ShapeDtypeStruct(shape, np.uint8))
        assert region_product.fits(large, kernel_JC, jnp.bfloat16) == expected


def test_both_ways_of_the_product_decode_alike(monkeypatch):
    video, rng = make_video(), np.random.default_rng(2)
    mean_C, std_C = jnp.asarray(rng.normal(size=64)), jnp.asarray(rng.uniform(0.5, 2, 64))
    kernel_JC = jnp.asarray(rng.normal(size=(32, 64)), jnp.float32)
    arguments = (video, mean_C, std_C, kernel_JC, jnp.bfloat16)
    plain = region_product.region_product(*arguments)
    monkeypatch.setattr(region_product, "fits", lambda *_: True)
    compiled = region_product.product
    monkeypatch.setattr(region_product, "product", lambda *a: compiled(*a, True))
    ours = region_product.region_product(*arguments)
    assert ours.shape == plain.shape == (3, 2, 64, 32)
    assert relative_error(ours.astype(jnp.float32), plain.astype(jnp.float32)) < 6e-3
    regions_FMC = standardise(
        VideoInput(*(part[2] for part in video[:1]), *(part[0] for part in video[1:4])),
        mean_C,
        std_C,
    )
    want = jnp.einsum("fmc,jc->fmj", regions_FMC, kernel_JC, precision="highest")
    assert relative_error(ours[0].astype(jnp.float32), want) < 6e-3


@pytest.mark.gpu
def test_a_model_on_a_gpu_gives_what_xla_alone_gives(monkeypatch):
    rng = np.random.default_rng(3)
    model = UHMAN(9, 3, 4, 5, hidden_size=32, embedding_size=16, dtype=jnp.bfloat16)
    video = make_video()
    ids_B = jnp.array([0, 1, 2])
    user = UserInput(
        ids_B, ids_B, ids_B, jnp.array([[1, 2], [3, 4], [5, 6]]), jnp.ones((3, 2), bool)
    )
    variables = model.init(jax.random.key(0), video, user)
    weight_BT = jnp.asarray(rng.normal(size=(3, 9)), jnp.float32)

    @jax.jit
    def loss(params):
        scores_BT = model.apply({**variables, "params": params}, video, user)
        return jnp.sum(scores_BT * weight_BT)

    ours = jax.value_and_grad(loss)(variables["params"])
    jax.clear_caches()
    monkeypatch.setattr(region_product, "fits", lambda *_: False)
    plain = jax.value_and_grad(loss)(variables["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.03), ours, plain)
    assert float(jnp.abs(ours[1]["regions"]["kernel_JC"]).max()) > 0
