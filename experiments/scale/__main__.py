"""Estimates the cost of large runs from measured rates, and the communication of a step.

    python -m experiments.scale [--core_hour=0.04] [--gpu_hour=4]

Writes plan.md, communication.json, communication.png and .svg beside this file; takes minutes.
Delete communication.json to measure again.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from experiments.paper.drawing import save
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.runtime.streams import run_app

_CORE_HOUR = flags.DEFINE_float("core_hour", 0.04, "Price of a core for an hour.")
_GPU_HOUR = flags.DEFINE_float("gpu_hour", 4.0, "Price of a GPU for an hour.")

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[1]


def measured(file: str, name: str) -> float:
    """Returns the median of a figure measured in experiments/speed."""
    path = ROOT / "experiments" / "speed" / file
    return float(np.median(json.loads(path.read_text("utf-8"))["figures"][name]))


FRAMES_PER_CORE_SECOND = measured("cpu/encoding.json", "extraction") / 2  # with decoding
FRAMES, CLIP_BYTES = 16, 16 * 64 * 2048
RESIDENT_CLIPS_PER_SECOND = 8233 / measured("h200/epoch.json", "on the device")
STREAMED_CLIPS_PER_SECOND = 8233 / measured("h200/epoch.json", "streamed")  # from host memory
CPU_CLIPS_PER_SECOND = 8233 / measured("cpu/epoch.json", "on the device")
RESIDENT_CLIPS = int(0.5 * 139 * 2**30 / CLIP_BYTES)  # half of the GPU's memory
EPOCHS = 50

MESHES = ["2x1", "4x1", "8x1", "4x2", "2x4", "1x8"]
VOCABULARIES = [(669, "exact"), (100_000, "exact"), (1_000_000, "sampled")]


def plan(core_hour: float, gpu_hour: float) -> str:
    """Returns a Markdown table of sizes, times and prices by number of clips."""
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
    heads = ["clips", *(f"{size:,}" for size in sizes)]
    table = [heads, *([name, *map(cell, sizes)] for name, cell in rows)]
    lines = [f"| {' | '.join(line)} |\n" for line in table]
    return "".join([lines[0], "|---" * len(heads) + "|\n", *lines[1:]])


def _encoding(clips: int) -> float:
    return clips * FRAMES / FRAMES_PER_CORE_SECOND / 3600


def _rate(clips: int) -> float:
    return RESIDENT_CLIPS_PER_SECOND if clips <= RESIDENT_CLIPS else STREAMED_CLIPS_PER_SECOND


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.3g} GB" if num_bytes < 1e12 else f"{num_bytes / 1e12:.3g} TB"


def _time(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.3g} {unit}"
    return f"{seconds:.2g} s"


def communication() -> list[dict]:
    """Measures each mesh and vocabulary that communication.json lacks; returns all measurements."""
    path = FOLDER / "communication.json"
    found = json.loads(path.read_text("utf-8")) if path.exists() else []
    known = {(row["mesh"], row["num_hashtags"]) for row in found}
    cases = [(mesh, *vocabulary) for vocabulary in VOCABULARIES for mesh in MESHES]
    missing = [case for case in cases if case[:2] not in known]
    for mesh, num_hashtags, estimator in progress_bar(missing, desc="programs", unit="program"):
        command = [sys.executable, "-m", "experiments.scale.communication", f"--mesh={mesh}"]
        command += [f"--num_hashtags={num_hashtags}", f"--estimator={estimator}"]
        found.append(json.loads(subprocess.check_output(command, cwd=ROOT, text=True)))
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return found


def draw(found: list[dict]) -> None:
    """Draws the bytes that a device sends and holds, over meshes."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = {"sent": "sent by a device in a step"}
    panels["state"] = "parameters and best so far, held by a device"
    for axis, (key, title) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for (num_hashtags, estimator), marker in zip(VOCABULARIES, "os^", strict=True):
            size = {row["mesh"]: row[key] for row in found if row["num_hashtags"] == num_hashtags}
            label = f"T = {num_hashtags:,}, {estimator} loss"
            axis.plot(MESHES, [size[x] / 2**20 for x in MESHES], marker=marker, label=label)
        axis.set(yscale="log", xlabel="mesh: data x model", ylabel="MiB", title=title)
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    save(figure, FOLDER, "communication")


def main(_: list[str]) -> None:
    """Writes all files."""
    table = plan(_CORE_HOUR.value, _GPU_HOUR.value)
    (FOLDER / "plan.md").write_text(table, "utf-8")
    draw(communication())
    print(table)


if __name__ == "__main__":
    run_app(main)
