"""The paper, naively, in float64: one video at a time, every region projected, rows stacked."""

import jax
import jax.numpy as jnp
import numpy as np
from model_inputs import AGES, COUNTRIES, GENDERS, HEADS, D, K, T


def layer_norm(params, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-6) * params["scale"] + params["bias"]


def ffn(params, x):
    """Equations 4 and 8."""
    first, second = params["hidden"], params["output"]
    return np.maximum(0, x @ first["kernel"] + first["bias"]) @ second["kernel"] + second["bias"]


def multi_head(params, user_K, items_XK):
    """MultiHead(u, F, F) of [14], with explicit keys and values."""
    heads, weights = [], []
    for h in range(HEADS):
        query = user_K @ params["query_KHW"][:, h]
        keys = items_XK @ params["key_KHW"][:, h]
        values = items_XK @ params["value_KHW"][:, h]
        logits = keys @ query / np.sqrt(K // HEADS)
        weight_X = np.exp(logits) / np.exp(logits).sum()
        heads.append(weight_X @ values)
        weights.append(weight_X)
    return np.concatenate(heads) @ params["output_HWK"].reshape(K, K), np.stack(weights)


def guided_pooling(params, user_K, items_XK, attention):
    """Equations 1 to 3 (5 to 7), with the stack of equal rows that they write."""
    num_items = len(items_XK)
    if num_items == 0:
        attended_K, weights_HX = np.zeros(K), np.zeros((HEADS, 0))
    elif attention:
        attended_K, weights_HX = multi_head(params["heads"], user_K, items_XK)
    else:
        attended_K, weights_HX = items_XK.mean(axis=0), np.full((HEADS, num_items), 1 / num_items)
    row_K = layer_norm(params["attention_norm"], attended_K + user_K)
    gamma_XK = np.stack([row_K] * max(num_items, 1))
    pooled_XK = layer_norm(params["ffn_norm"], ffn(params["ffn"], gamma_XK) + gamma_XK)
    np.testing.assert_allclose(
        pooled_XK, pooled_XK[:1].repeat(len(pooled_XK), 0), rtol=1e-12, atol=1e-12
    )
    return pooled_XK[0], weights_HX


def one_hot(index, size):
    return np.eye(size)[index]


def reference(
    variables,
    video,
    user,
    *,
    region_attention=True,
    frame_attention=True,
    user_guidance=True,
    unit=True,
):
    """Returns query_BD, hashtags_TD, regions_BFHM and frames_BHF."""
    params, statistics, video, user = jax.tree.map(
        lambda a: np.asarray(a, np.float64 if a.dtype == jnp.float32 else None),
        (variables["params"], variables["statistics"], video, user),
    )
    embed, first = params["user"], params["regions"]
    num_videos, num_frames, num_regions, _ = video.codes_BFMC.shape
    query_BD = np.zeros((num_videos, D))
    regions_BFHM = np.zeros((num_videos, num_frames, HEADS, num_regions))
    frames_BHF = np.zeros((num_videos, HEADS, num_frames))
    for b in range(num_videos):
        used = user.history_BR[b][user.history_mask_BR[b]]
        multi_hot_T = sum((one_hot(t, T) for t in used), np.zeros(T))
        parts = [
            one_hot(user.gender_B[b], GENDERS) @ embed["gender_AK"],
            one_hot(user.age_B[b], AGES) @ embed["age_AK"],
            one_hot(user.country_B[b], COUNTRIES) @ embed["country_AK"],
            multi_hot_T @ embed["history_TK"] / np.sqrt(max(len(used), 1)),
        ]
        user_K = ffn(embed["ffn"], np.concatenate(parts))
        guide_K = user_K if user_guidance else params["guide_K"]
        frames_XK = []
        real = np.flatnonzero(video.mask_BF[b])
        for f in real:
            decoded_MC = video.codes_BFMC[b, f] * video.scale_BC[b] + video.offset_BC[b]
            scaled_MC = (decoded_MC - statistics["mean_C"]) / statistics["std_C"]
            hidden_MK = np.maximum(0, scaled_MC @ first["kernel_JC"].T + first["bias_J"])
            regions_MK = hidden_MK @ params["region_out_JK"] + params["region_out_K"]
            frame_K, regions_BFHM[b, f] = guided_pooling(
                params["region_block"], guide_K, regions_MK, region_attention
            )
            frames_XK.append(frame_K)
        video_K, weights_HX = guided_pooling(
            params["frame_block"], guide_K, np.reshape(frames_XK, (-1, K)), frame_attention
        )
        frames_BHF[b][:, real] = weights_HX
        query_BD[b] = np.concatenate([user_K, video_K]) @ params["query_out"]["kernel"]
    hashtags_TD = np.eye(T) @ params["hashtag_TK"] @ params["hashtag_out"]["kernel"]
    if unit:
        query_BD /= np.linalg.norm(query_BD, axis=1, keepdims=True)
        hashtags_TD /= np.linalg.norm(hashtags_TD, axis=1, keepdims=True)
    return query_BD, hashtags_TD, regions_BFHM, frames_BHF
