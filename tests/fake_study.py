"""Makes synthetic cells of a study; every number follows from the levels below."""

import itertools

import numpy as np

WORLDS = ("selection", "additive", "everything")
SYSTEMS = ("BL", "UA", "3WM", "UHMAN(a)", "UHMAN(b)", "UHMAN(c)", "UHMAN")
BASELINES = ("BL", "UA", "3WM", "UHMAN")
LEVELS = dict(zip(SYSTEMS, (0.104, 0.121, 0.138, 0.151, 0.166, 0.155, 0.174), strict=True))
REFERENCES = {"popularity": 0.046, "user_attributes": 0.061, "user_history": 0.083}
REFERENCES |= {"user_oracle": 0.112, "content_oracle": 0.212, "additive_oracle": 0.241}
REFERENCES |= {"observable_oracle": 0.279, "oracle": 0.291}
NUM_SEEDS, NUM_VIDEOS = 5, 211


def metrics_of(level):
    """Returns recall, F1 and other metrics that fit a P@10."""
    table = {"P@10": level, "R@10": min(2.4 * level, 1), "P@50": 0.33 * level, "R@50": 3.6 * level}
    for k in (10, 50):
        precision, recall = table[f"P@{k}"], table[f"R@{k}"]
        table[f"F1@{k}"] = 2 * precision * recall / (precision + recall)
    return table


def make_cell(
    rng, folder=None, *, world="selection", world_seed=0, view="natural", recipe="plus",
    system="UHMAN", level=None, noise=0.002, part=("tables",), suffix="", seeds=NUM_SEEDS, **fields,
):  # fmt: skip
    """Returns a finished cell; with a folder, its per-video values have the cell's means."""
    level = LEVELS[system] if level is None else level
    name = f"{world}-{world_seed}/{view}/{recipe}/{system}{suffix}"
    base_V = np.random.default_rng([world_seed, len(world)]).gamma(2, 0.5, NUM_VIDEOS)
    p10_SV = level * base_V / base_V.mean() * rng.normal(1, 0.15, (seeds, NUM_VIDEOS))
    p10_SV += level + rng.normal(0, noise, (seeds, 1)) - p10_SV.mean(axis=1, keepdims=True)
    rows = [metrics_of(float(value)) for value in p10_SV.mean(axis=1)]
    test = {metric: [row[metric] for row in rows] for metric in rows[0]}
    cell = {
        "cell": name, "world": world, "world_seed": world_seed, "view": view, "recipe": recipe,
        "system": system, "part": list(part), "hidden_size": 64, "embedding_size": 64,
        "data_share": 1.0, "seeds": list(range(seeds)), "train_videos": 7409,
        "test_videos": NUM_VIDEOS, "hashtags": 578, "test": test, "validation": test,
        "references": {key: metrics_of(value) for key, value in REFERENCES.items()},
        "config": {"model.name": system.lower(), "train.weight_decay": 0.002}, "seconds": 210.0,
        "failed": "",
    }  # fmt: skip
    if folder is not None:
        path = folder / "per_video" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        order = rng.permutation(NUM_VIDEOS)
        ids = np.array([f"v{index:04d}" for index in order])
        p10 = p10_SV[:, order].astype(np.float32)
        np.savez(path, video_ids=ids, p10_SV=p10, r10_SV=np.float32(2.4) * p10)
        cell["per_video"] = str(path.relative_to(folder))
    return cell | fields


REGION_FACTS = {  # value and level of chance
    "object_mass": (0.58, 0.237), "tagged_mass": (0.31, 0.14), "top_region_tagged": (0.44, 0.14)
}  # fmt: skip
FRAME_FACTS = {"tagged_frame_mass": (0.71, 0.5), "top_frame_tagged": (0.83, 0.5)}


def attention_of(rng, system):
    """Returns region and frame attention, each only if the system has it."""
    facts = REGION_FACTS if system != "UHMAN(a)" else {}
    facts = facts | (FRAME_FACTS if system != "UHMAN(b)" else {})
    result = {}
    for key, (value, chance) in facts.items():
        result[key] = rng.normal(value, 0.02, NUM_SEEDS).tolist()
        result[f"{key.removesuffix('_mass')}_chance"] = [chance] * NUM_SEEDS
    return result


def slices_of(level):
    groups = [("frequency", "rare: 8 to 12 uses", 0.4), ("frequency", "medium: 13 to 31 uses", 0.9)]
    groups += [("frequency", "frequent: 32 to 900 uses", 1.9), ("user", "no history", 0.7)]
    groups += [("user", "missing attributes", 0.9), ("user", "history and all attributes", 1.1)]
    return [
        {"by": by, "name": name, "num_videos": 40 + 7 * index}
        | {"P@10": scale * level, "R@10": scale * level, "R@50": 2 * scale * level}
        for index, (by, name, scale) in enumerate(groups)
    ]


def make_study(folder, num_worlds=2):
    """Every system, world, view and recipe, both sweeps, sample sizes, choices and other views."""
    rng = np.random.default_rng(0)
    cells = []

    def add(level, **fields):
        cells.append(make_cell(rng, folder, level=level, **fields))

    scales = {"selection": 1.0, "additive": 1.25, "everything": 0.9, "plus": 1.0, "paper": 0.55}
    scales |= {"natural": 1.0, "balanced": 0.7, "temporal": 0.95, "cold_user": 0.8}
    settings = (("plus", "natural"), ("plus", "balanced"), ("paper", "natural"))
    for world, (recipe, view), world_seed, system in itertools.product(
        WORLDS, settings, range(num_worlds), SYSTEMS
    ):
        level = LEVELS[system] * scales[world] * scales[recipe] * scales[view]
        level *= 1 + 0.02 * world_seed
        attends = system.startswith("UHMAN")
        level *= 0.72 if world == "additive" and attends else 1
        add(
            level, world=world, world_seed=world_seed, view=view, recipe=recipe, system=system,
            attention=attention_of(rng, system) if attends else {}, slices=slices_of(level),
            config={"model.name": system.lower(), "simulator.world": world},
            part=("tables", "sizes"),
        )  # fmt: skip
    for part, key, letter, levels in (
        ("figure4a", "hidden_size", "K", (0.09, 0.14, 0.165, 0.174, 0.16)),
        ("figure4b", "embedding_size", "d", (0.12, 0.172, 0.174, 0.175, 0.173)),
    ):
        for size, level in zip((8, 16, 32, 64, 128), levels, strict=True):
            add(level, part=[part], suffix=f"-{letter}{size}", **{key: size})
    for share, system in itertools.product((0.25, 0.5), BASELINES):
        add(
            LEVELS[system] * share**0.35, system=system, part=["sizes"], data_share=share,
            train_videos=int(7409 * share), suffix=f"-x{share}",
        )  # fmt: skip
    for choice, level in (("history_dropout", 0.162), ("weight_decay", 0.174)):
        name = f"without_{choice}"
        for world_seed in range(num_worlds):
            level *= 1 + 0.02 * world_seed
            add(level, world_seed=world_seed, part=["recipe"], variant=name, suffix=f"-{name}")
    for view, system in itertools.product(("temporal", "cold_user"), BASELINES):
        add(LEVELS[system] * scales[view], view=view, system=system)
    return cells


def plain(scores, **fields):
    """Returns a cell with these P@10 values."""
    cell = make_cell(np.random.default_rng(0), **fields)
    return cell | {"test": {"P@10": list(scores)}, "validation": {"P@10": list(scores)}}
