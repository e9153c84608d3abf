"""A truth with made-up probabilities for the videos of any view."""

import numpy as np
import pyarrow as pa

from uhman_jax.simulator import truth as truth_lib


def make_truth(view, *, seed=0):
    """A truth in another order than the view's, with ties, and a hashtag that the view lacks.

    Of each clip, object 0 is in regions 16..31 at 0.0 s, object 1 in regions 0..3 at 0.2 s.
    """
    rng = np.random.default_rng(seed)
    video_ids = rng.permutation([*view.video_ids, "other"]).tolist()
    hashtags = rng.permutation([*view.hashtags, "unseen"]).tolist()
    shape = len(video_ids), len(hashtags)
    boxes = [(0, 0.0, 0.0, 0.25, 1.0, 0.5), (1, 0.2, 0.0, 0.0, 0.5, 0.125)]
    names = ("object", "time_s", "x0", "y0", "x1", "y1")
    objects = [
        {"video_id": video_id, "class_name": "thing"} | dict(zip(names, box, strict=True))
        for video_id in video_ids
        for box in boxes
    ]
    tagged = set(view.video_ids[::2])
    clips = [
        {
            "video_id": video_id,
            "object": 1 if video_id in tagged else -1,
            "class_names": ["thing", "thing"],
            "affinity": [0.0, 1.0],
        }
        for video_id in video_ids
    ]
    return truth_lib.Truth(
        hashtags=tuple(hashtags),
        video_ids=tuple(video_ids),
        probability_VT=rng.integers(0, 4, shape).astype(np.float32) / 4,
        observable_VT=rng.random(shape, np.float32),
        objects=pa.Table.from_pylist(objects, truth_lib.OBJECTS_SCHEMA),
        clips=pa.Table.from_pylist(clips, truth_lib.CLIPS_SCHEMA),
    )
