"""Exports a run: writes all files to a temporary folder, then renames it."""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from tools.export import card
from tools.export.programs import PLATFORMS, Shapes, make_programs
from uhman_jax.dataset import attributes
from uhman_jax.dataset.field_checks import MAX_AGE
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, View
from uhman_jax.input_pipeline import eval_batches, iterate
from uhman_jax.models.two_paths import num_channels
from uhman_jax.run_directory import which_seed
from uhman_jax.runtime.errors import UserError
from uhman_jax.runtime.storage import check_folder
from uhman_jax.trained_run import Trained, open_run

SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
MANIFEST = "model.json"  # names the program that wrote the folder, and lists its files
MADE_BY = "uhman_jax tools.export"


def export_run(
    workdir: pathlib.Path, output: pathlib.Path, seed: int | None = None, queries: str = "none"
) -> list[str]:
    """Exports a run atomically; returns the report.

    Equal runs give equal bytes on one kind of processor with one version of JAX.

    Args:
        workdir: the run directory.
        output: a folder that does not exist or is empty, or an earlier export, which is replaced.
        seed: seed of the model; None: the run's first.
        queries: split whose query vectors are also written, or "none".

    Raises:
        UserError: the run is incomplete or damaged, or `output` holds something else.
    """
    _check_output(output)
    check_folder(output.parent, "the folder of --output")
    run = open_run(workdir)
    seed = which_seed(run.config, seed)
    files = _files(run, seed, queries)
    partial = output.parent / f".{output.name}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(parents=True)
        for name, content in files.items():
            with open(partial / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(map(len, files.values())) / 1e6
    return [
        f"Wrote {len(files)} files, {size:.1f} MB, of seed {seed} to {output}.",
        f"{output / 'README.md'} describes them.",
    ]


def _files(run: Trained, seed: int, queries: str) -> dict[str, bytes]:
    """Returns the contents of all files by name; the last one describes the others."""
    view, fitted = run.view, run.calibration(seed)
    model, variables = run.model(seed)
    frames, regions = run.max_frames_and_regions()
    channels = num_channels(variables)
    codes = str(run.facts["features"].get("storage", "uint8"))
    shapes = Shapes(frames, regions, channels, view.max_history, codes)
    top_k = min(run.config.evaluate.top_k, len(view.hashtags))
    programs = make_programs(model, variables, shapes, top_k)
    hashtags: Any = model.apply({"params": variables["params"]}, method="hashtags")
    hashtags_TD = np.asarray(hashtags)
    files = {f"{name}.jax_export": content for name, content in programs.items()}
    files |= {
        "hashtags.json": _json(view.spellings),
        "keys.json": _json(view.hashtags),
        "hashtags.npy": _npy(hashtags_TD),
        "encodings.json": _json(encodings(view)),
        "confidence.json": _json(dataclasses.asdict(fitted) if fitted else None),
        "extractor.json": _json(run.facts["features"]),
        **_loader(),
        "requirements.txt": f"jax>={jax.__version__}\nnumpy>=2.0\nflatbuffers\n".encode(),
    }
    if queries != "none":
        rows = view.rows(SPLITS[queries])
        empty_VD = np.zeros((0, hashtags_TD.shape[1]), np.float32)
        queries_VD = [empty_VD, *_queries(programs["query"], run, rows, frames)]
        files["queries.npy"] = _npy(np.concatenate(queries_VD))
        files["video_ids.json"] = _json([view.video_ids[row] for row in rows])
    facts = {
        "made_by": MADE_BY,
        "format": 3,  # 2 had no keys.json, and keys in hashtags.json
        "name": run.config.name,
        "system": run.system,
        "simulated": bool(run.metrics.get("simulated")),
        "seed": seed,
        "num_hashtags": len(view.hashtags),
        "embedding_size": hashtags_TD.shape[1],
        "shapes": shapes._asdict() | {"top_k": top_k},
        "platforms": list(PLATFORMS),
        "queries": queries,
        "jax": jax.__version__,
        "run": {key: run.facts.get(key) for key in ("source", "versions", "data", "view")},
    }
    files["README.md"] = card.card(run, facts).encode()
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    return files | {MANIFEST: _json(facts | {"sha256": sums})}


def _loader() -> dict[str, bytes]:
    """Returns load.py and copies of the modules that it imports, which import each other."""
    modules = pathlib.Path(str(attributes.__file__)).parent
    paths = {"load.py": pathlib.Path(__file__).with_name("load.py")}
    for name in ("attributes", "hashtags", "rules", "spelling"):
        paths[f"uhman_jax_{name}.py"] = modules / f"{name}.py"
    return {
        name: path.read_bytes().replace(b"from uhman_jax.dataset.", b"from uhman_jax_")
        for name, path in paths.items()
    }


def encodings(view: View) -> dict[str, Any]:
    """Returns the values of the attributes by index, and the lowest age of each bucket."""
    firsts: dict[str, int] = {}  # lowest age in years by bucket
    for years in range(MAX_AGE + 1):
        firsts.setdefault(attributes.age_bucket(years), years)
    index = {name: i for i, name in enumerate(view.ages)}
    return {
        "rules": view.rules,
        "spellings": {
            "genders": _spellings(view.genders, attributes.fold_gender, attributes.gender_names()),
            "countries": _spellings(
                view.countries, attributes.fold_country, attributes.country_names()
            ),
        },
        "genders": view.genders,
        "countries": view.countries,
        "ages": [
            {"name": name, "from": years, "id": index.get(name, 0)}
            for name, years in firsts.items()
        ],
        "max_history": view.max_history,
    }


def _spellings(
    values: Sequence[str], fold: Callable[[str], str], names: Mapping[str, str]
) -> dict[str, int]:
    """Returns the indices of an attribute's values by their spellings.

    Keys are the squeezed spellings of `names`, and the folded values with a space before them.
    """
    index = {fold(value): i for i, value in enumerate(values) if i}
    own = {f" {name}": i for name, i in index.items()}
    return own | {text: index[name] for text, name in names.items() if name in index}


def _queries(program: bytes, run: Trained, rows: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """Yields the query vectors of videos in batches, from the exported program."""
    query = jax.jit(export.deserialize(bytearray(program)).call)
    sizes = {"batch_size": run.config.evaluate.batch_size, "max_frames": frames}
    for batch in iterate(eval_batches(run.view, run.features(), rows=rows, **sizes)):
        yield np.asarray(query(*batch.video[:4], *batch.user[:5]))[batch.mask_B]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return buffer.getvalue()


def _check_output(output: pathlib.Path) -> None:
    """Raises UserError if something other than an export would be lost."""
    link = output.is_symlink()
    names = {path.name for path in output.iterdir()} if output.is_dir() else {output.name}
    if not link and not (names and output.exists()):
        return
    try:
        facts = json.loads((output / MANIFEST).read_bytes())
        known = set(facts["sha256"]) | {MANIFEST, "__pycache__"}
        ours = facts["made_by"] == MADE_BY and names <= known and not link
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise UserError(
            f"--output must be a new or empty folder or an earlier export, got {output}, which "
            "holds something else; name another"
        )


def _replace(partial: pathlib.Path, output: pathlib.Path) -> None:
    """Renames the new folder to `output`, then removes the old one, if any."""
    if not output.exists():
        os.rename(partial, output)
        return
    old = partial.with_suffix(".old")
    os.rename(output, old)
    try:
        os.rename(partial, output)
    except BaseException:
        os.rename(old, output)
        raise
    shutil.rmtree(old)
