"""The model card: README.md of an exported folder."""

from typing import Any

from uhman_jax.errors import count_of
from uhman_jax.scores import COLUMNS, is_number, read_slices
from uhman_jax.trained import Trained

_SLICES = ("P@10", "R@10", "R@50")


def card(run: Trained, facts: dict[str, Any]) -> str:
    """Returns the page in Markdown.

    Args:
        run: the exported run.
        facts: the content of `model.json` without the checksums.
    """
    parts = [
        _what(run, facts),
        _use(facts),
        _files(facts),
        _data(run, facts),
        _metrics(run, facts),
        _attributes(run),
        _limits(run, facts),
    ]
    return "\n\n".join(parts) + "\n"


def _what(run: Trained, facts: dict[str, Any]) -> str:
    simulated = (
        "\n\n**The training data are simulated.** Users, hashtags and clips are made up; the "
        "figures below say nothing of real people."
        if facts["simulated"]
        else ""
    )
    return (
        f"# {run.config.name}: hashtags for short videos\n\n"
        f"{facts['system']}, seed {facts['seed']}: given the features of a clip and who posts it "
        "(gender, age, country, hashtags used before; all may be unknown), it ranks "
        f"{count_of(facts['num_hashtags'], 'hashtag')}.{simulated}"
    )


def _use(facts: dict[str, Any]) -> str:
    shapes = facts["shapes"]
    return f"""## How to load

    pip install -r requirements.txt

    from load import load
    model = load(".")
    user = dict(gender="female", age=21, country="PT", history=["dance"])
    model.recommend(codes_FMC, scale_C, offset_C, **user, top_k=10)

`load.py` needs JAX, NumPy and flatbuffers (with which JAX reads exported functions), nothing else.
`codes_FMC` is {shapes["codes"]} of shape (F, {shapes["regions"]}, {shapes["channels"]}), where
F is at most {shapes["frames"]} frames. A feature is `code * scale_C + offset_C`, with a scale and
an offset for each channel of the clip. Shorter clips are padded under a mask, which changes
nothing. At most {shapes["top_k"]} hashtags come back; of a history the first {shapes["history"]}
known ones count. The features must come from the extractor that `extractor.json` describes: others
of the same shape give nonsense."""


def _files(facts: dict[str, Any]) -> str:
    queries = (
        f"- `queries.npy`, `video_ids.json`: queries of the {facts['queries']} videos.\n"
        if facts["queries"] != "none"
        else ""
    )
    return (
        f"""## Files

- `recommend.jax_export`: (features, profile) -> ids and scores of the best, `query.jax_export`:
  (features, profile) -> query. StableHLO by `jax.export` for {", ".join(facts["platforms"])},
  for batches of any size; arguments codes_BFMC, scale_BC, offset_BC, mask_BF, gender_B, age_B,
  country_B, history_BR, history_mask_BR. Parameters are in them.
- `hashtags.json`, `hashtags.npy`: the vocabulary and its vectors, float32 \
({facts["num_hashtags"]}, {facts["embedding_size"]}). A score is vector
  times query, so that any index of inner products can serve the query. Hashtags are spelled as
  most users of the training data write them; `keys.json` has the same ones as they are matched,
  in one spelling.
"""
        + queries
        + """- `load.py`, `uhman_jax_*.py`: the code that reads this folder.
- `confidence.json`: from scores to probabilities.
- `encodings.json`: numbers of genders, countries and ages (0: unknown).
- `extractor.json`: how features were made. `model.json`: sizes, versions, SHA-256 of all files.

JAX promises to read exported functions for six months; the vectors do not age."""
    )


def _data(run: Trained, facts: dict[str, Any]) -> str:
    data = run.metrics.get("data") or {}
    names = ("train_videos", "validation_videos", "test_videos", "hashtags", "users")
    sizes = ", ".join(f"{data[name]} {name.replace('_', ' ')}" for name in names if name in data)
    features = run.facts["features"]
    extractor = features.get("extractor", features.get("weights", "unknown"))
    print_ = features.get("fingerprint", "none")
    return (
        f"## Data\n\n{sizes}{' (simulated)' if facts['simulated'] else ''}. "
        f"Features: {extractor}; fingerprint {print_}.\n\nFingerprint of the data: "
        f"{run.facts.get('data')}."
    )


def _metrics(run: Trained, facts: dict[str, Any]) -> str:
    seeds = run.metrics.get("num_seeds", 1)
    mean = f", mean over {seeds} seeds" if seeds > 1 else ""
    lines = [
        "## Metrics",
        "",
        f"On the test videos, all hashtags ranked; one value a video{mean}"
        f"{'; simulated data' if facts['simulated'] else ''}.",
        "",
        *_table(
            ["", *COLUMNS],
            [
                [system.title, *(run.scores[system.key, name].mean for name in COLUMNS)]
                for system in run.scores.systems(run.system)
            ],
        ),
        "",
        "Popularity, user history and user attributes are counts of the training data, without any "
        "clip.",
    ]
    slices = read_slices(run.metrics.get("slices"))
    if slices:
        rows = [[x.name, x.num_videos, *(x.means.get(name) for name in _SLICES)] for x in slices]
        lines += [
            "",
            "By how often hashtags were used in training (only those count), and by what is known "
            "of users:",
            "",
            *_table(["", "videos", *_SLICES], rows),
        ]
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[Any]]) -> list[str]:
    def line(cells: list[Any]) -> str:
        texts = [
            str(cell) if isinstance(cell, str | int) else f"{cell:.4f}" if is_number(cell) else "-"
            for cell in cells
        ]
        return f"| {' | '.join(texts)} |"

    return [line(head), line(["---", *["---:"] * (len(head) - 1)]), *map(line, rows)]


def _attributes(run: Trained) -> str:
    view, blind = run.view, run.config.model.name.value == "bl"
    used = (
        "This system does not look at the user at all."
        if blind
        else "Gender, age and country change what is suggested, next to the clip and the history: "
        "each value has a vector of its own, unknown too. Users of a kind therefore get what users "
        "of that kind used in training, wishes and stereotypes alike."
    )
    known = ", ".join(
        f"{len(names) - 1} {kind}"
        for kind, names in (
            ("genders", view.genders),
            ("age buckets", view.ages),
            ("countries", view.countries),
        )
    )
    return (
        f"## How attributes are used\n\n{used} Known: {known}; any other value counts as "
        "unknown, and so may all, which a service without consent to use them should do. "
        "`python -m tools.inspect_run` of the package shows what each kind of user gets more often."
    )


def _limits(run: Trained, facts: dict[str, Any]) -> str:
    lines = [
        "## Intended use and limits",
        "",
        "For research, and for suggestions that a person picks from. Not for posting without a "
        "look, nor for guessing a person's gender, age or country.",
        "",
        "- It knows only its vocabulary, and the language and fashion of its data.",
        "- Rare hashtags are found less often than frequent ones: see the table above.",
        "- Hashtags are users' own words and may offend; nothing is filtered.",
        "- Scores rank the hashtags of one clip. They are no probabilities." + _confidence(run),
        "- Platforms differ in how products are rounded, so scores and close ranks may differ.",
    ]
    if "random" in str(run.facts["features"].get("weights", "")):
        lines.append("- Features come from random weights: fine for a try, not for results.")
    if facts["simulated"]:
        lines.append("- It was trained on a simulated world and is of no use for real clips.")
    return "\n".join(lines)


def _confidence(run: Trained) -> str:
    error = run.scores["calibration", "error@10"].mean
    if not is_number(error):
        return ""
    return (
        " The confidence is one: fitted on validation clips, it is off by "
        f"{100 * error:.1f} percentage points on average over the ten best of test clips."
    )
