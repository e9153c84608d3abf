"""Suggests hashtags for a clip and a user profile with the model of a run, and explains them.

    from uhman_jax.recommend import Profile, Recommender

    with Recommender.load("runs/natural") as recommender:
        recommender.recommend("clip.mp4", Profile(gender="female", age=21), top_k=10)

Or on the command line: `python -m uhman_jax.recommend --run=runs/natural --video=clip.mp4`.
"""

from typing import TYPE_CHECKING

from uhman_jax.recommend.profile import Profile

if TYPE_CHECKING:
    from uhman_jax.recommend.recommender import Answer, Recommender, Suggestion

__all__ = ["Answer", "Profile", "Recommender", "Suggestion"]


def __getattr__(name: str):
    """Imports the recommender, and with it JAX, only on use, so that `--help` is fast."""
    if name in __all__:
        from uhman_jax.recommend import recommender

        return getattr(recommender, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
