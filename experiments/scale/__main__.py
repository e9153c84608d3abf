"""What a run of any size takes: a plan from measured rates, and the communication of a step.

    python -m experiments.scale [--core_hour=0.04] [--gpu_hour=4]

Writes plan.md, communication.json, communication.png and .svg beside this file; some minutes.
Delete communication.json to have it measured again.
"""

import json
import pathlib
import subprocess
import sys

import matplotlib
import numpy as np
from absl import flags

from uhman_jax.progress import progress_bar
from uhman_jax.streams import run_app

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

_CORE_HOUR = flags.DEFINE_float("core_hour", 0.04, "Price of a core for an hour.")
_GPU_HOUR = flags.DEFINE_float("gpu_hour", 4.0, "Price of a GPU for an hour.")

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[1]


def measured(file: str, name: str) -> float:
    """Median of what experiments/speed has measured."""
    path = ROOT / "experiments" / "speed" / file
    return float(np.median(json.loads(path.read_text("utf-8"))["figures"][name]))


FRAMES_PER_CORE_SECOND = measured("cpu/encoding.json", "extraction") / 2  # with decoding
FRAMES, CLIP_BYTES = 16, 16 * 64 * 2048
RESIDENT_CLIPS_PER_SECOND = 8233 / measured("h200/epoch.json", "on the device")
STREAMED_CLIPS_PER_SECOND = 8233 / measured("h200/epoch.json", "streamed")  # from the host's memory
CPU_CLIPS_PER_SECOND = 8233 / measured("cpu/epoch.json", "on the device")
RESIDENT_CLIPS = int(0.5 * 139 * 2**30 / CLIP_BYTES)  # half of its memory
EPOCHS = 50

MESHES = ["2x1", "4x1", "8x1", "4x2", "2x4", "1x8"]
VOCABULARIES = [(669, "exact"), (100_000, "exact"), (1_000_000, "sampled")]


def plan(core_hour: float, gpu_hour: float) -> str:
    """A table over numbers of clips, in Markdown."""
    rows = [
        ("features on disk", lambda n: _size(n * CLIP_BYTES)),
        ("encoding, core-hours", lambda n: f"{_encoding(n):,.0f}"),
        ("its price", lambda n: f"{_encoding(n) * core_hour:,.2f}"),
        ("its time on 1,000 cores", lambda n: _time(_encoding(n) * 3.6)),
        ("50 epochs on two cores", lambda n: _time(EPOCHS * n / CPU_CLIPS_PER_SECOND)),
        ("50 epochs on one H200", lambda n: _time(EPOCHS * n / _rate(n))),
        ("its price", lambda n: f"{EPOCHS * n / _rate(n) / 3600 * gpu_hour:,.2f}"),
        ("H200s whose memory holds the features", lambda n: f"{-(-n // RESIDENT_CLIPS):,}"),
    ]
    sizes = (10_000, 1_000_000, 100_000_000)
    lines = ["| clips | " + " | ".join(f"{size:,}" for size in sizes) + " |", "|---|" + "---|" * 3]
    lines += [
        f"| {name} | " + " | ".join(cell(size) for size in sizes) + " |" for name, cell in rows
    ]
    return "\n".join(lines) + "\n"


def _encoding(clips: int) -> float:
    return clips * FRAMES / FRAMES_PER_CORE_SECOND / 3600


def _rate(clips: int) -> float:
    return RESIDENT_CLIPS_PER_SECOND if clips <= RESIDENT_CLIPS else STREAMED_CLIPS_PER_SECOND


def _size(num_bytes: float) -> str:
    for unit in ("GB", "TB"):
        num_bytes /= 1e9 if unit == "GB" else 1e3
        if num_bytes < 1000:
            break
    return f"{num_bytes:.3g} {unit}"


def _time(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.3g} {unit}"
    return f"{seconds:.2g} s"


def communication() -> list[dict]:
    """A measurement for every mesh and vocabulary; those of an earlier call stay."""
    path = FOLDER / "communication.json"
    found = json.loads(path.read_text("utf-8")) if path.exists() else []
    there = {(row["mesh"], row["num_hashtags"]) for row in found}
    cases = [(mesh, *vocabulary) for vocabulary in VOCABULARIES for mesh in MESHES]
    missing = [case for case in cases if case[:2] not in there]
    for mesh, num_hashtags, estimator in progress_bar(missing, desc="programs", unit="program"):
        command = [sys.executable, "-m", "experiments.scale.communication", f"--mesh={mesh}"]
        command += [f"--num_hashtags={num_hashtags}", f"--estimator={estimator}"]
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(ended.stdout))
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return found


def draw(found: list[dict]) -> None:
    """Bytes sent and state held per device, over meshes."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, key, title in (
        (axes[0], "sent", "sent by a device in a step"),
        (axes[1], "state", "parameters and best so far, held by a device"),
    ):
        for (num_hashtags, estimator), marker in zip(VOCABULARIES, "os^", strict=True):
            values = [
                row[key] / 2**20
                for mesh in MESHES
                for row in found
                if row["mesh"] == mesh and row["num_hashtags"] == num_hashtags
            ]
            label = f"T = {num_hashtags:,}, {estimator} loss"
            axis.plot(MESHES, values, marker=marker, label=label)
        axis.set(yscale="log", xlabel="mesh: data x model", ylabel="MiB", title=title)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    for kind in ("png", "svg"):
        figure.savefig(FOLDER / f"communication.{kind}", dpi=150)


def main(_: list[str]) -> None:
    """Writes all files."""
    (FOLDER / "plan.md").write_text(plan(_CORE_HOUR.value, _GPU_HOUR.value), "utf-8")
    draw(communication())
    print((FOLDER / "plan.md").read_text("utf-8"))


if __name__ == "__main__":
    run_app(main)
