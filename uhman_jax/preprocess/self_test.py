"""Checks the video library: decodes the package's own clip and compares it with known content.

`own_clip.mp4` holds three H.264 pictures, 0.2 s each, of uncompressed macroblocks (I_PCM). It has
32x16 pixels, a left and a right half of different colours, and a display rotation of 90 degrees.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from uhman_jax.preprocess.clip_file import DecodedClip

_FILE = Path(__file__).with_name("own_clip.mp4")
_COLOURS = (  # RGB of the left and the right half of each frame
    ((255, 0, 0), (0, 255, 0)),
    ((0, 0, 255), (255, 255, 0)),
    ((255, 255, 255), (0, 0, 0)),
)


def trouble(decode: Callable[..., DecodedClip]) -> str:
    """Returns "" if the clip is decoded correctly, else a message for the user.

    Args:
        decode: `decode.sample_frames`.
    """
    try:
        difference = _difference(decode(str(_FILE), frames_per_second=5.0, max_frames=4, size=16))
    except Exception as error:  # another version of the library may raise anything
        difference = f"{type(error).__name__}: {error}"
    if not difference:
        return ""
    try:
        import av

        library = f"av {av.__version__} (FFmpeg {getattr(av, 'ffmpeg_version_info', '?')})"
    except Exception as error:
        library = f"av ({error})"
    return (
        f"{library} must decode the test clip of this program, got {difference}; install a "
        "supported version, e.g. pip install 'av>=17.1,<20'"
    )


def _difference(clip: DecodedClip) -> str:
    if clip.reason:
        return repr(clip.reason)
    if clip.images.shape != (3, 16, 16, 3) or (clip.width, clip.height) != (16, 32):
        return f"images {clip.images.shape} of a video of {clip.width}x{clip.height} pixels"
    times = [round(float(time), 3) for time in clip.times_F]
    if times != [0.0, 0.2, 0.4] or round(clip.seconds, 3) != 0.6:
        return f"frames at {times} of {clip.seconds:.3f} s"
    # After the rotation (90 degrees clockwise) the left half is on top.
    halves = np.stack([clip.images[:, :6], clip.images[:, 10:]], axis=1)
    means = halves.mean(axis=(2, 3)).reshape(-1, 3)
    for found, colour in zip(means, np.reshape(_COLOURS, (-1, 3)), strict=True):
        if np.abs(found - colour).max() > 8:
            return f"the colour {found.round().astype(int).tolist()} for {colour.tolist()}"
    return ""
