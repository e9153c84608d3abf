"""Models, and inputs of three videos and their users, with masked slots of every kind."""

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax import losses
from uhman_jax.kernels.video_input import VideoInput
from uhman_jax.models.layers import UserInput
from uhman_jax.models.uhman import UHMAN

B, F, M, C, R, T = 3, 5, 7, 11, 13, 23
GENDERS, AGES, COUNTRIES = 29, 31, 37
HEADS, K, D = 2, 34, 19
SIZES = dict(
    num_hashtags=T,
    num_genders=GENDERS,
    num_ages=AGES,
    num_countries=COUNTRIES,
    hidden_size=K,
    embedding_size=D,
)


def sizes_of(system):
    return SIZES | ({"num_heads": HEADS} if system is UHMAN else {})


def make_model(system, seed=0, **options):
    """A model whose every parameter, biases and scales too, differs from its initial value."""
    model = system(**sizes_of(system) | options)
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        if leaf.ndim > 1 and not name.endswith(("AK", "TK")):
            # kernel_JC is stored transposed, output_HWK has two axes that are summed over
            summed = leaf.shape[1] if name == "kernel_JC" else K if name == "output_HWK" else None
            value = rng.normal(size=leaf.shape) / np.sqrt(summed or leaf.shape[0])
        else:
            value = (name == "scale") + rng.normal(size=leaf.shape) * (1 if leaf.ndim > 1 else 0.1)
        return jnp.asarray(value, leaf.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0), *make_inputs())
    statistics = {
        "mean_C": jnp.asarray(rng.normal(size=C), jnp.float32),
        "std_C": jnp.asarray(rng.uniform(0.5, 2.0, size=C), jnp.float32),
    }
    params = jax.tree.map_with_path(fill, shapes["params"])
    return model, {"params": params, "statistics": statistics}


def make_inputs(seed=0, dtype=np.uint8, num_regions=M):
    """5, 2 and 1 real frames; 13, 4 and no history hashtags; masked slots are not at the end."""
    rng = np.random.default_rng(seed)
    codes_BFMC = rng.integers(0, 256, (B, F, num_regions, C)).astype(dtype)
    mask_BF = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0]], bool)
    history_mask_BR = np.arange(R)[None, :] % 4 == np.array([[0], [1], [9]])
    history_mask_BR[0] = True
    video = VideoInput.plain(
        codes_BFMC,
        rng.uniform(0.005, 0.02, (B, C)).astype(np.float32),
        rng.normal(size=(B, C)).astype(np.float32),
        mask_BF,
    )
    user = UserInput(
        np.array([0, 4, GENDERS - 1], np.int32),
        np.array([AGES - 1, 0, 7], np.int32),
        np.array([3, COUNTRIES - 1, 0], np.int32),
        np.stack([rng.permutation(T)[:R] for _ in range(B)]).astype(np.int32),
        history_mask_BR,
    )
    return jax.tree.map(jnp.asarray, (video, user))


def inputs_of(codes_BFMC, gender_B):
    """Inputs of float features and users of whom only the gender is known."""
    num_clips, num_frames, _, num_channels = codes_BFMC.shape
    scale_BC = np.ones((num_clips, num_channels), np.float32)
    mask_BF = np.ones((num_clips, num_frames), bool)
    video = VideoInput.plain(codes_BFMC, scale_BC, 0 * scale_BC, mask_BF)
    unknown_B, history_BR = 0 * gender_B, np.zeros((num_clips, 1), int)
    user = UserInput(gender_B, unknown_B, unknown_B, history_BR, history_BR.astype(bool))
    return jax.tree.map(jnp.asarray, (video, user))


def train(model, inputs, tag_B, seed=0):
    """Variables before and after 400 steps of WARP on clips with one hashtag each."""
    variables = jax.jit(model.init)(jax.random.key(seed), *inputs)
    positives_BP = jnp.asarray(tag_B)[:, None]
    mask_BP = jnp.ones(positives_BP.shape, bool)

    def loss(params):
        scores_BT = model.apply(variables | {"params": params}, *inputs)
        how = {"margin": 0.1, "rank_weight": "wsabie"}
        return losses.warp_exact(scores_BT, positives_BP, mask_BP, **how).mean()

    @jax.jit
    def learn(params):
        def step(params, _):
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, jax.grad(loss)(params)), None

        return jax.lax.scan(step, params, length=400)[0]

    return variables, variables | {"params": learn(variables["params"])}
