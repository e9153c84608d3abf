"""Random raw datasets and their views, for the tests of views, splits and downsampling."""

import dataclasses
import random

from uhman_jax.config import Distribution, Split, ViewConfig
from uhman_jax.dataset.raw import RawDataset, User, Video
from uhman_jax.dataset.view import build_view

EVERY_SPLIT = list(Split)
EVERY_VIEW = [(split, distribution) for split in Split for distribution in Distribution]


def make_raw(videos, users=()):
    return RawDataset(None, tuple(videos), {user.user_id: user for user in users}, (), "")


def build(videos, users=(), **options):
    """Returns a view of all videos; by default each hashtag with a training use is in it."""
    config = ViewConfig(**{"min_count": 1} | options)
    return build_view(make_raw(videos, users), [video.video_id for video in videos], config)


def random_world(seed, num_videos=240, num_users=30, num_hashtags=20, missing=0.1):
    """Returns videos and users; a hashtag with a smaller number is more frequent."""
    rng = random.Random(seed)
    names = [f"t{i:02d}" for i in range(num_hashtags)]
    weights = [1 / (i + 1) for i in range(num_hashtags)]

    def draw(most):
        return tuple(dict.fromkeys(rng.choices(names, weights, k=rng.randint(1, most))))

    videos, users = [], []
    for _ in range(num_videos):
        video_id, user_id = f"v{rng.random():.12f}", f"u{rng.randrange(num_users):02d}"
        hashtags, time = draw(6), None if rng.random() < missing else rng.randrange(10**9)
        videos.append(Video(video_id, "", user_id, hashtags, time))
    for u in range(num_users - 3):  # three users are not listed
        gender, age = rng.choice(["", "f", "m"]), rng.choice([None, 9, 15, 20, 30, 40, 50])
        country, history = rng.choice(["", "br", "no", "se"]), draw(6) if rng.random() < 0.7 else ()
        users.append(User(f"u{u:02d}", gender, age, country, history))
    return videos, users


def names_of(view, ragged, row):
    return [view.hashtags[t] for t in ragged.row(row)]


def contents(view, rows):
    """Returns the content of some rows of a view as texts."""
    return {
        view.video_ids[row]: (
            view.user_ids[row],
            int(view.split_V[row]),
            view.genders[view.gender_V[row]],
            view.ages[view.age_V[row]],
            view.countries[view.country_V[row]],
            names_of(view, view.history, row),
            names_of(view, view.positives, row),
        )
        for row in rows
    }


def relabel(videos, ids, draw):
    """Returns the videos, with new hashtags for some ids."""
    return [
        dataclasses.replace(video, hashtags=draw(video)) if video.video_id in ids else video
        for video in videos
    ]
