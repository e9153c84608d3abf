"""UHMAN and exact WARP in PyTorch, as its users would write them: the peer of a training step.

On a GPU activations are bfloat16 (autocast), as ours are; on a CPU everything is float32.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from tools.bench.synthetic import AGES, COUNTRIES, GENDERS

HEADS = 4
LEARNING_RATE, MARGIN = 0.05, 0.1


class GuidedBlock(nn.Module):
    """E(F) of the paper: one query over the items of a row, LayerNorm, FFN, LayerNorm."""

    def __init__(self, width: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, HEADS, bias=False, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.ffn = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, user: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Pools items (N, X, K) by one query per row, user (N, K), to (N, K)."""
        attended, _ = self.attention(user[:, None], items, items, need_weights=False)
        gamma = self.norms[0](attended[:, 0] + user)
        return self.norms[1](self.ffn(gamma) + gamma)


class Uhman(nn.Module):
    """Query tower and hashtag tower."""

    def __init__(self, channels: int, width: int, num_hashtags: int):
        super().__init__()
        self.regions = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
        self.tables = nn.ModuleList(
            [nn.Embedding(size, width) for size in (GENDERS, AGES, COUNTRIES)]
        )
        self.history = nn.Embedding(num_hashtags, width)
        self.user = nn.Sequential(nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, width))
        self.over_regions, self.over_frames = GuidedBlock(width), GuidedBlock(width)
        self.query = nn.Linear(2 * width, width, bias=False)
        self.hashtags = nn.Parameter(torch.randn(num_hashtags, width) / width**0.5)
        self.hashtag_out = nn.Linear(width, width, bias=False)

    def forward(self, features, attributes, history, history_mask):
        """Returns scores (B, T) of features (B, F, M, C), attributes (B, 3), history (B, R)."""
        batch, frames = features.shape[:2]
        rows = self.history(history) * history_mask[:, :, None]
        count = history_mask.sum(1, keepdim=True).clamp(min=1)
        parts = [table(attributes[:, i]) for i, table in enumerate(self.tables)]
        user = self.user(torch.cat([*parts, rows.sum(1) / count.sqrt()], dim=-1))
        regions = self.regions(features).flatten(0, 1)
        pooled = self.over_regions(user.repeat_interleave(frames, 0), regions)
        video = self.over_frames(user, pooled.view(batch, frames, -1))
        query = nn.functional.normalize(self.query(torch.cat([user, video], -1)), dim=-1)
        return query @ nn.functional.normalize(self.hashtag_out(self.hashtags), dim=-1).T


def warp(scores: torch.Tensor, positives: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns exact WARP: L(rank) times the mean hinge of the violators; all positives at once."""
    num_hashtags = scores.shape[1]
    weights = torch.cumsum(1 / torch.arange(1, num_hashtags + 1, device=scores.device), 0)
    weights = torch.cat([torch.zeros(1, device=scores.device), weights])
    negative = torch.ones_like(scores, dtype=torch.bool).scatter(1, positives, False)
    own = scores.gather(1, positives)
    hinge = torch.relu(MARGIN - own[:, :, None] + scores[:, None, :]) * negative[:, None, :]
    rank = (hinge > 0).sum(-1)
    loss = weights[rank] / rank.clamp(min=1) * hinge.sum(-1)
    return (loss * mask).sum() / len(scores)


def finish() -> None:
    """Waits until all steps are done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def steps(batch: Any, width: int, num_hashtags: int) -> dict[str, Callable[[], Any]]:
    """Returns steps, eager and compiled, on stored codes (as ours) and on decoded features."""
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def tensor(array: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array), device=device)

    video, user = batch.video, batch.user
    codes = tensor(video.codes_BFMC)
    scale, offset = tensor(video.scale_BC[:, None, None]), tensor(video.offset_BC[:, None, None])
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    decoded = (codes.float() * scale + offset).to(dtype)
    attributes = np.stack([user.gender_B, user.age_B, user.country_B], axis=1).astype(np.int64)
    users = (
        tensor(attributes),
        tensor(user.history_BR.astype(np.int64)),
        tensor(user.history_mask_BR.astype(np.float32)),
    )
    # Padding slots repeat the first positive, so that a scatter to them changes nothing.
    first = batch.positives_BP[:, :1]
    filled_BP = np.where(batch.positives_mask_BP, batch.positives_BP, first)
    positives = tensor(filled_BP.astype(np.int64))
    mask = tensor(batch.positives_mask_BP)

    def contestant(compiled: bool, from_codes: bool) -> Callable[[], Any]:
        torch.manual_seed(0)
        model = Uhman(codes.shape[-1], width, num_hashtags).to(device)
        optimiser = torch.optim.SGD(model.parameters(), LEARNING_RATE)

        def loss_of() -> torch.Tensor:
            features = (codes.float() * scale + offset).to(dtype) if from_codes else decoded
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                scores = model(features, *users)
            return warp(scores.float(), positives, mask)

        run = torch.compile(loss_of) if compiled else loss_of

        def step() -> None:
            optimiser.zero_grad()
            run().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()

        return step

    return {
        "PyTorch": contestant(False, True),
        "PyTorch compiled": contestant(True, True),
        "PyTorch, decoded beforehand": contestant(False, False),
        "PyTorch compiled, decoded beforehand": contestant(True, False),
    }
