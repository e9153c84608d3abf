"""Measures how well a linear readout of random Inception-v3 features recognises a region's object.

    python -m experiments.recipe.random_features --root=data/pixels-... [--weights=FILE.h5]

Compares two kinds of kernels: with independent taps, and a Gaussian window times a random mix of
channels (the default). Each is tested without calibration, with the batch norms of all layers
calibrated, and with those of the last block calibrated (the default). --weights adds a weight file.
Ridge regressions are fitted on the first four fifths of the clips and tested on the rest. They
predict the class of a region that exactly one object covers, and the classes of a clip's objects
from the mean of its regions. Prints one line per kind of features, for the best of three ridges.
"""

import numpy as np
from absl import flags

from uhman_jax.backbone import INCEPTION_V3
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.preprocess.decode import sample_frames
from uhman_jax.runtime.errors import UserError, exit_on_user_error
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.runtime.streams import run_app
from uhman_jax.simulator.truth import load_truth

_ROOT = flags.DEFINE_string("root", None, "Simulated dataset with clips.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "Keras .h5 file to compare with; empty: none.")
_NUM_CLIPS = flags.DEFINE_integer("num_clips", 300, "Clips to use, one frame of each.")
CALIBRATION_FRAMES = 64
RIDGES = (1e2, 1e3, 1e4)


def ridge_scores(x_NC: np.ndarray, y_NG: np.ndarray, num_fit: int, ridge: float) -> np.ndarray:
    """Fits a ridge regression on the first `num_fit` rows; returns the scores of the others."""
    fit_NC, mean_G = x_NC[:num_fit], y_NG[:num_fit].mean(axis=0)
    gram_CC = fit_NC.T @ fit_NC + ridge * np.eye(fit_NC.shape[1], dtype=np.float32)
    return x_NC[num_fit:] @ np.linalg.solve(gram_CC, fit_NC.T @ (y_NG[:num_fit] - mean_G)) + mean_G


def region_accuracy(features_VMC: np.ndarray, class_VM: np.ndarray, num_fit: int) -> float:
    """Returns the accuracy over the regions with exactly one object (class >= 0)."""
    covered_VM = class_VM >= 0
    x_NC, y_N = features_VMC[covered_VM], class_VM[covered_VM]
    fit = int(covered_VM[:num_fit].sum())
    y_NG = np.eye(class_VM.max() + 1, dtype=np.float32)[y_N]
    scores = (ridge_scores(x_NC, y_NG, fit, ridge) for ridge in RIDGES)
    return max(float((score.argmax(axis=1) == y_N[fit:]).mean()) for score in scores)


def clip_recall(features_VMC: np.ndarray, has_VG: np.ndarray, num_fit: int) -> float:
    """Returns the recall of a clip's n classes in the top n, from the mean of its regions."""
    recalls = []
    for ridge in RIDGES:
        score_VG = ridge_scores(features_VMC.mean(axis=1), has_VG, num_fit, ridge / 100)
        recall_V = [
            has_G[np.argsort(-score_G)[: int(has_G.sum())]].mean()
            for score_G, has_G in zip(score_VG, has_VG[num_fit:], strict=True)
            if has_G.any()
        ]
        recalls.append(float(np.mean(recall_V)))
    return max(recalls)


def independent_taps(model, seed: int) -> None:
    """Draws He-normal kernels with independent taps."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            shape = tuple(layer.kernel.shape)
            scale = np.sqrt(2 / np.prod(shape[:-1]))
            layer.kernel.assign(rng.standard_normal(shape, np.float32) * np.float32(scale))


def labelled_frames(root: str, num_clips: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns each clip's middle frame, its regions' classes (-1: none or several), its classes.

    Raises:
        UserError: the dataset is not simulated.
    """
    raw, truth = read_raw_dataset(root, strict=False), load_truth(root)
    if truth is None:
        raise UserError(f"--root must be a simulated dataset, got {root!r} without its truth")
    videos, class_names = raw.videos[:num_clips], truth.clips["class_names"].to_pylist()
    names = sorted({name for row in class_names for name in row})
    classes = dict(zip(truth.video_ids, class_names, strict=True))
    size, num_regions = INCEPTION_V3.image_size, INCEPTION_V3.num_regions
    images = np.empty((len(videos), size, size, 3), np.uint8)
    class_VM = np.full((len(videos), num_regions), -1)
    has_VG = np.zeros((len(videos), len(names)), np.float32)
    for v, video in enumerate(progress_bar(videos, desc="decoding", unit="clip")):
        frames = sample_frames(raw.root / video.path, max_frames=3)
        middle = len(frames.images) // 2
        images[v] = frames.images[middle]
        time_F = np.array([frames.times_F[middle]], np.float32)
        mask_OM = truth.region_masks(video.video_id, time_F, num_regions)[0]
        ids_O = np.array([names.index(name) for name in classes[video.video_id]])
        single_M = mask_OM.sum(axis=0) == 1
        class_VM[v, single_M] = ids_O[mask_OM.argmax(axis=0)][single_M]
        has_VG[v, ids_O[mask_OM.any(axis=1)]] = 1
    return images, class_VM, has_VG


def main(_: list[str]) -> None:
    """Prints the comparison; a user's mistake exits with status 2."""
    with exit_on_user_error():
        compare(*labelled_frames(_ROOT.value, _NUM_CLIPS.value))


def compare(images: np.ndarray, class_VM: np.ndarray, has_VG: np.ndarray) -> None:
    """Prints the scores of every kind of features."""
    from uhman_jax.preprocess import extractor as inception  # imports TensorFlow

    num_fit = len(images) * 4 // 5
    fit, held_out = (part[part >= 0] for part in (class_VM[:num_fit], class_VM[num_fit:]))
    chance = (held_out == np.bincount(fit).argmax()).mean()
    print(
        f"{len(images)} clips, {has_VG.shape[1]} classes; guessing the most frequent class is "
        f"right in {chance:.3f} of the regions"
    )
    kinds = {
        f"{kernels}, {how}": (fill, after)
        for kernels, fill in (("taps", independent_taps), ("window", inception._randomise))
        for how, after in (
            ("raw", ""),
            ("all calibrated", "first"),
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
            first = model.layers[0].name if after == "first" else after
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
