"""How well a linear reading of random Inception-v3 features tells what a region shows.

    python -m experiments.recipe.random_features --root=data/pixels-... [--weights=FILE.h5]

Compares kernels of independent taps with those of a Gaussian window over random channel mixes (the
default), each as they are, with batch-norm statistics calibrated in every layer, and with those of
the last block alone (the default); and other weights where a file is named. The first four fifths
of the clips fit ridge regressions, the last fifth scores them: the class of a region that just one
object covers, and the classes of a clip's objects from the mean of its regions. Prints one line per
kind of features; the best of three ridges for each figure.
"""

import numpy as np
from absl import flags

from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.dataset.truth import load_truth
from uhman_jax.errors import UserError, only_flags, told_in_a_sentence
from uhman_jax.preprocess.backbone import INCEPTION_V3
from uhman_jax.preprocess.decode import sample_frames
from uhman_jax.progress import progress_bar
from uhman_jax.streams import run_app

_ROOT = flags.DEFINE_string("root", None, "Simulated dataset with clips.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "Keras .h5 file to compare with; empty: none.")
_NUM_CLIPS = flags.DEFINE_integer("num_clips", 300, "Clips to use, one frame of each.")
CALIBRATION_FRAMES = 64
RIDGES = (1e2, 1e3, 1e4)


def ridge_scores(x_NC: np.ndarray, y_NG: np.ndarray, num_fit: int, ridge: float) -> np.ndarray:
    """Scores of the rows after the first `num_fit`, which fit the regression."""
    fit_NC, mean_G = x_NC[:num_fit], y_NG[:num_fit].mean(axis=0)
    gram_CC = fit_NC.T @ fit_NC + ridge * np.eye(fit_NC.shape[1], dtype=np.float32)
    return x_NC[num_fit:] @ np.linalg.solve(gram_CC, fit_NC.T @ (y_NG[:num_fit] - mean_G)) + mean_G


def region_accuracy(features_VMC: np.ndarray, class_VM: np.ndarray, num_fit: int) -> float:
    """Share of singly covered regions whose class is read right."""
    covered_VM = class_VM >= 0
    x_NC, y_N = features_VMC[covered_VM], class_VM[covered_VM]
    fit = int(covered_VM[:num_fit].sum())
    y_NG = np.eye(class_VM.max() + 1, dtype=np.float32)[y_N]
    scores = (ridge_scores(x_NC, y_NG, fit, ridge) for ridge in RIDGES)
    return max(float((score.argmax(axis=1) == y_N[fit:]).mean()) for score in scores)


def clip_recall(features_VMC: np.ndarray, has_VG: np.ndarray, num_fit: int) -> float:
    """Recall of a clip's classes among as many best ones, from the mean of its regions."""
    best, wanted_VG = 0.0, has_VG[num_fit:]
    for ridge in RIDGES:
        score_VG = ridge_scores(features_VMC.mean(axis=1), has_VG, num_fit, ridge / 100)
        recall = [
            has_G[np.argsort(-score_G)[: int(has_G.sum())]].mean()
            for score_G, has_G in zip(score_VG, wanted_VG, strict=True)
            if has_G.any()
        ]
        best = max(best, float(np.mean(recall)))
    return best


def independent_taps(model, seed: int) -> None:
    """He-normal kernels, every tap drawn alone."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            shape = tuple(layer.kernel.shape)
            scale = np.sqrt(2 / np.prod(shape[:-1]))
            layer.kernel.assign(rng.standard_normal(shape, np.float32) * np.float32(scale))


def main(argv: list[str]) -> None:
    """Prints the comparison; a mistake is one sentence and status 2."""
    with told_in_a_sentence():
        only_flags(argv)
        compare()


def compare() -> None:
    """Compares.

    Raises:
        UserError: no simulated dataset of clips.
    """
    from uhman_jax.preprocess import extractor as inception  # imports TensorFlow

    raw, truth = read_raw_dataset(_ROOT.value, strict=False), load_truth(_ROOT.value)
    if truth is None:
        raise UserError(
            f"--root must be a simulated dataset, got {_ROOT.value!r} without its truth"
        )
    videos = raw.videos[: _NUM_CLIPS.value]
    names = sorted({name for row in truth.clips["class_names"].to_pylist() for name in row})
    classes = dict(zip(truth.video_ids, truth.clips["class_names"].to_pylist(), strict=True))
    size, num_regions = INCEPTION_V3.image_size, INCEPTION_V3.num_regions
    images = np.empty((len(videos), size, size, 3), np.uint8)
    class_VM = np.full((len(videos), num_regions), -1)
    has_VG = np.zeros((len(videos), len(names)), np.float32)
    for v, video in enumerate(progress_bar(videos, desc="decoding", unit="clip")):
        frames = sample_frames(raw.root / video.path, max_frames=3)
        images[v], time = (
            frames.images[len(frames.images) // 2],
            frames.times_F[len(frames.images) // 2],
        )
        mask_FOM, objects = truth.region_masks(
            video.video_id, np.array([time], np.float32), num_regions
        )
        mask_OM = mask_FOM[0]
        ids_O = np.array([names.index(classes[video.video_id][o]) for o in objects])
        alone_M = mask_OM.sum(axis=0) == 1
        class_VM[v, alone_M] = ids_O[mask_OM.argmax(axis=0)][alone_M]
        has_VG[v, ids_O[mask_OM.any(axis=1)]] = 1

    num_fit = len(videos) * 4 // 5
    counts = np.bincount(class_VM[:num_fit][class_VM[:num_fit] >= 0], minlength=len(names))
    held_out = class_VM[num_fit:][class_VM[num_fit:] >= 0]
    print(
        f"{len(videos)} clips, {len(names)} classes; guessing the most frequent class is right in "
        f"{(held_out == counts.argmax()).mean():.3f} of the regions"
    )
    first_layer = "input_layer"
    kinds = {
        f"{kernels}, {how}": (fill, after)
        for kernels, fill in (("taps", independent_taps), ("window", inception._randomise))
        for how, after in (
            ("raw", ""),
            ("all calibrated", first_layer),
            ("last block", INCEPTION_V3.calibrate_after),
        )
    }
    if _WEIGHTS.value:
        fill = lambda model, seed: inception.load_weights(INCEPTION_V3, model, _WEIGHTS.value)  # noqa: E731
        kinds[_WEIGHTS.value.rsplit("/", 1)[-1]] = (fill, "")
    for kind, (fill, after) in kinds.items():
        model = inception._network(INCEPTION_V3)
        fill(model, 0)
        if after:
            first = model.layers[0].name if after == first_layer else after
            few = images[:: max(1, len(images) // CALIBRATION_FRAMES)]
            inception.calibrate(INCEPTION_V3, model, few, first)
        features_VMC = inception.Extractor(INCEPTION_V3, model, kind, 16).features(images)
        flat = features_VMC.reshape(-1, features_VMC.shape[-1])
        features_VMC = (features_VMC - flat.mean(axis=0)) / (flat.std(axis=0) + 1e-12)
        region = region_accuracy(features_VMC, class_VM, num_fit)
        clip = clip_recall(features_VMC, has_VG, num_fit)
        print(f"{kind:32s} region accuracy {region:.3f}  clip recall {clip:.3f}", flush=True)


if __name__ == "__main__":
    run_app(main)
