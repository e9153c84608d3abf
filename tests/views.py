"""Made-up raw datasets and their views, for the tests of views, splits and downsampling."""

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
    """A view over all videos; every hashtag with a training use is known, unless options say."""
    config = ViewConfig(**{"min_count": 1} | options)
    return build_view(make_raw(videos, users), [video.video_id for video in videos], config)


def random_world(seed, num_videos=240, num_users=30, num_hashtags=20, missing=0.1):
    """Videos and users with a long tail of hashtags, more popular with a smaller number."""
    rng = random.Random(seed)
    names = [f"t{i:02d}" for i in range(num_hashtags)]
    weights = [1 / (i + 1) for i in range(num_hashtags)]

    def draw(most):
        return tuple(dict.fromkeys(rng.choices(names, weights, k=rng.randint(1, most))))

    videos = [
        Video(
            f"v{rng.random():.12f}",
            "",
            f"u{rng.randrange(num_users):02d}",
            draw(6),
            None if rng.random() < missing else rng.randrange(10**9),
        )
        for _ in range(num_videos)
    ]
    users = [
        User(
            f"u{u:02d}",
            rng.choice(["", "f", "m"]),
            rng.choice([None, 9, 15, 20, 30, 40, 50]),
            rng.choice(["", "br", "no", "se"]),
            draw(6) if rng.random() < 0.7 else (),
        )
        for u in range(num_users - 3)  # three users are not listed
    ]
    return videos, users


def names_of(view, ragged, row):
    return [view.hashtags[t] for t in ragged.row(row)]


def contents(view, rows):
    """All that a view says of some rows, in words."""
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
    """The videos with new hashtags where their ids are listed."""
    return [
        dataclasses.replace(video, hashtags=draw(video)) if video.video_id in ids else video
        for video in videos
    ]
