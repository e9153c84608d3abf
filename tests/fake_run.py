"""Makes run directories with synthetic files, for the tests of the report."""

import dataclasses
import json

import clips
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uhman_jax.config import Config
from uhman_jax.dataset.raw import User, Video, write_raw_dataset
from uhman_jax.dataset.rules import CURRENT
from uhman_jax.dataset.view import Ragged, View

WORDS = "dance cat sunset fyp skate coffee beach dog guitar city makeup snow".split()
NUM_CLIPS, NUM_FRAMES, NUM_REGIONS = 12, 16, 64
METRICS = [f"{kind}@{k}" for kind in ("P", "R", "F1") for k in (1, 5, 10, 50)]
METRICS += ["NDCG@10", "MRR", "MAP", "kP/R@10"]


def write_clip(path, shade, num_frames=24, width=90, height=160):
    """Writes a square that moves over a gradient."""
    images = []
    for t in range(num_frames):
        image = np.full((height, width, 3), shade, np.uint8)
        image[..., 0] = np.linspace(40, 200, height)[:, None]
        image[..., 1] = 220 - image[..., 0]
        x, y = int(t / num_frames * (width - 30)), int(t / num_frames * (height - 30))
        image[y : y + 30, x : x + 30] = (250, 240, 90)
        images.append(image)
    clips.write_clip(path, images, [1000 * t // 12 for t in range(num_frames)])


def make_metrics(rng, num_seeds, simulated):
    """Returns metrics that all differ, so that a swapped cell shows."""
    metrics = {
        "simulated": simulated,
        "num_seeds": num_seeds,
        "extractor": "Inception-v3 mixed10, random weights (seed 0), calibrated",
        "data": {"videos": 10291, "train_videos": 7410, "hashtags": 669, "users": 6500},
        "calibration/error@10": 0.0417,
        "reliability": {
            "said": [0.04, 0.13, 0.62], "hits": [0.03, 0.2, 0.5], "count": [7000, 3000, 370]
        },
    }  # fmt: skip
    ranges = {"popularity": (0.05, 0.15), "user_history": (0.05, 0.15)}
    ranges |= {"user_attributes": (0.1, 0.2)}
    if simulated:
        ranges |= {"observable_oracle": (0.5, 0.6), "oracle": (0.65, 0.8)}
    for metric in METRICS:
        seeds = rng.uniform(0.2, 0.4, num_seeds)
        metrics[f"test/{metric}"] = float(seeds.mean())
        metrics[f"test/{metric}/seeds"] = seeds.tolist()
        metrics[f"test/{metric}/interval"] = float(2.1 * seeds.std()) if num_seeds > 1 else None
        metrics |= {f"{key}/{metric}": float(rng.uniform(*ends)) for key, ends in ranges.items()}
    if simulated:
        low, high = metrics["popularity/P@5"], metrics["oracle/P@5"]
        metrics |= {
            "gap_closed/P@5": (metrics["test/P@5"] - low) / (high - low),
            "gap_closed/P@5/interval": 0.037 if num_seeds > 1 else None,
            "attention/object_mass": 0.503, "attention/object_chance": 0.161,
            "attention/tagged_mass": 0.274, "attention/tagged_frame_mass": 0.731,
            "attention/tagged_frame_chance": 0.52,
        }  # fmt: skip
    names = {"frequency": ("10 to 29 uses", "30 to 99 uses", "100 uses or more")}
    names |= {"user": ("full profile, history", "no history", "missing attributes")}
    groups = [(by, name) for by in names for name in names[by]]
    metrics["slices"] = [
        {"by": by, "name": name, "num_videos": 1037 + i}
        | {"P@10": float(rng.uniform(0.1, 0.3)), "R@10": float(rng.uniform(0.3, 0.6))}
        for i, (by, name) in enumerate(groups)
    ]
    return metrics


def make_curve(rng, num_seeds):
    def rise(start, end, epochs, noise):
        return (end + (start - end) * epochs + rng.normal(0, noise, num_seeds)).tolist()

    for epoch in range(1, 21):
        yield {
            "step": 40 * epoch,
            "epoch": epoch,
            "loss": rise(2.9, 0.4, np.exp(-epoch / 8), 0.05),
            "learning_rate": [0.1 if epoch < 12 else 0.01] * num_seeds,
            "validation/P@10": rise(0.05, 0.2, np.exp(-epoch / 4), 0.006),
            "train/P@10": rise(0.06, 0.28, np.exp(-epoch / 6), 0.004),
        }


def make_view(rng, video_ids, hashtags):
    num_videos, num_hashtags = len(video_ids), len(hashtags)
    # The user of the first clip is unknown and has no history.
    lengths = np.r_[0, rng.integers(2, num_hashtags, num_videos - 1)]
    history = [rng.permutation(num_hashtags)[:n] for n in lengths]
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    known = (np.arange(num_videos) > 0).astype(np.int32)
    gender_V, age_V, country_V = known * rng.integers(1, 3, (3, num_videos), dtype=np.int32)
    return View(
        hashtags=tuple(hashtags),
        spellings=tuple(hashtags),
        counts_T=np.arange(num_hashtags, 0, -1, dtype=np.int64) * 10,
        kept_T=np.ones(num_hashtags),
        genders=("unknown", "female", "male"),
        ages=("unknown", "18-24", "25-34"),
        countries=("unknown", "BR", "NO"),
        video_ids=tuple(video_ids),
        user_ids=tuple(f"user-{v}" for v in range(num_videos)),
        split_V=np.full(num_videos, 2, np.int8),
        gender_V=gender_V,
        age_V=age_V,
        country_V=country_V,
        history=Ragged(np.concatenate(history).astype(np.int32), offsets),
        positives=Ragged(
            np.arange(num_videos, dtype=np.int32) % num_hashtags,
            np.arange(num_videos + 1, dtype=np.int64),
        ),
        max_positives=4,
        max_history=32,
        report={},
        rules=CURRENT,
        fingerprint="0123456789ab",
    )


def make_examples(rng, video_ids):
    """Returns attention near the moving square; the last clip has only five real frames."""
    times_EF = np.tile(np.arange(NUM_FRAMES, dtype=np.float32) / 8, (len(video_ids), 1))
    mask_EF = np.ones((len(video_ids), NUM_FRAMES), bool)
    mask_EF[-1, 5:] = False
    y, x = np.divmod(np.arange(NUM_REGIONS), 8)
    at = 0.5 + 6.5 * np.arange(NUM_FRAMES) / NUM_FRAMES
    distance = (x - at[:, None]) ** 2 + (y - at[:, None]) ** 2
    logits = -distance / 3 + rng.normal(0, 0.4, (len(video_ids), NUM_FRAMES, NUM_REGIONS))
    regions = np.exp(logits)
    frames = np.where(mask_EF, rng.gamma(2, 1, mask_EF.shape), 0)
    return {
        "video_ids": np.array(video_ids),
        "times_EF": times_EF,
        "frame_mask_EF": mask_EF,
        "regions_EFM": (regions / regions.sum(-1, keepdims=True)).astype(np.float32),
        "frames_EF": (frames / frames.sum(-1, keepdims=True)).astype(np.float32),
    }


def make_run(folder, *, num_seeds=3, simulated=True, videos=True, hashtags=WORDS):
    """Makes a run directory and its raw dataset, with every file that the report reads."""
    rng = np.random.default_rng(7)
    workdir, root = folder / "run", folder / "root"
    workdir.mkdir(parents=True)
    (root / "clips").mkdir(parents=True)
    video_ids = [f"clip-{v:02d}" for v in range(NUM_CLIPS)]
    rows, predictions = [], []
    for v, video_id in enumerate(video_ids):
        path = f"clips/{video_id}.mp4" if videos else ""
        if videos:
            write_clip(root / path, shade=20 * v)
        true = [hashtags[int(i)] for i in rng.permutation(len(hashtags))[: 1 + v % 4]]
        rows.append(Video(video_id, path, f"user-{v}", ("any",), None))  # the report reads paths
        for seed in range(num_seeds):
            order = [hashtags[int(i)] for i in rng.permutation(len(hashtags))]
            predictions.append(
                {"video_id": video_id, "user_id": f"user-{v}", "seed": seed}
                | {"true_hashtags": true, "hashtags": order}
                | {"scores": np.linspace(1, 0, len(order)).tolist()}
            )
    users = [User(f"user-{v}", "", None, "", ()) for v in range(NUM_CLIPS)]
    write_raw_dataset(root, rows, users)
    pq.write_table(pa.Table.from_pylist(predictions), workdir / "predictions.parquet")
    np.savez(workdir / "examples.npz", **make_examples(rng, video_ids))
    make_view(rng, video_ids, hashtags).save(workdir / "view.npz")
    config = dataclasses.asdict(Config(name="natural"))
    config["preprocess"]["frames_per_second"] = 8.0
    (workdir / "config.json").write_text(json.dumps(config, default=lambda value: value.value))
    metrics = make_metrics(rng, num_seeds, simulated)
    (workdir / "metrics.json").write_text(json.dumps(metrics))
    lines = [json.dumps(entry) + "\n" for entry in make_curve(rng, num_seeds)]
    (workdir / "metrics.jsonl").write_text("".join(lines))
    return workdir, root
