"""The model card: README.md of an exported folder."""

from collections.abc import Iterable
from typing import Any

from uhman_jax.runtime.errors import count_of
from uhman_jax.scores import COLUMNS, is_number, read_slices, verdict
from uhman_jax.trained_run import Trained

_SLICES = ("P@10", "R@10", "R@50")
_CARD = """# {name}: hashtags for short videos

{system}, seed {seed}: given the features of a clip and who posts it (gender, age, country, hashtags
used before; all may be unknown), it ranks {hashtags}.{simulated_data}

## How to load

    pip install -r requirements.txt

    from load import load
    model = load(".")
    user = dict(gender="female", age=21, country="PT", history=["dance"])
    model.recommend(codes_FMC, scale_C, offset_C, **user, top_k=10)

`load.py` needs only JAX, NumPy and flatbuffers (with which JAX reads exported functions).
`codes_FMC` is {shapes[codes]} of shape (F, {shapes[regions]}, {shapes[channels]}), where F is at
most {shapes[frames]} frames. A feature is `code * scale_C + offset_C`, with a scale and an offset
for each channel of the clip. Shorter clips are padded under a mask, which changes nothing. At most
{shapes[top_k]} hashtags are returned; of a history, the first {shapes[history]} known hashtags are
used. The features must come from the extractor that `extractor.json` describes: other features of
the same shape give meaningless results.

## Files

- `recommend.jax_export`: (features, profile) -> ids and scores of the best; `query.jax_export`:
  (features, profile) -> query. StableHLO by `jax.export` for {platforms}, for batches of any size;
  arguments codes_BFMC, scale_BC, offset_BC, mask_BF, gender_B, age_B, country_B, history_BR,
  history_mask_BR. They contain the parameters.
- `hashtags.json`, `hashtags.npy`: the vocabulary and its vectors, float32 ({num_hashtags},
  {embedding_size}). A score is the inner product of vector and query, so any index of inner
  products can serve the query. A hashtag is spelled as most users of the training data write it;
  `keys.json` has the form in which it is matched.
{queries_line}- `load.py`, `uhman_jax_*.py`: the code that reads this folder.
- `confidence.json`: maps scores to probabilities.
- `encodings.json`: indices of genders, countries and ages (0: unknown).
- `extractor.json`: how features were computed. `model.json`: sizes, versions, SHA-256 of all files.

JAX promises to read exported functions for six months; the vectors have no such limit.

## Data

{sizes}{simulated_note}. Features: {extractor}; fingerprint {features_fingerprint}.

Fingerprint of the data: {data}.

## Metrics

On the test videos, all hashtags ranked; one value per video{mean}{simulated_metrics}.

{metrics}

Popularity, user history and user attributes rank by counts in the training data, not by the
clip.{verdict}
{slices}
## How attributes are used

{attributes} Known: {known}; any other value counts as unknown. All may be unknown, as they should
be in a service without consent to use them. `python -m tools.inspect_run` of the package shows
which hashtags each kind of user gets more often.

## Intended use and limits

For research, and for suggestions that a person picks from. Not for posting without review, nor for
guessing a person's gender, age or country.

- It knows only its vocabulary, and the language and trends of its data.
- Rare hashtags are found less often than frequent ones: see the table above.
- Hashtags are users' own words and may offend; nothing is filtered.
- Scores rank the hashtags of one clip. They are not probabilities.{confidence}
- Platforms differ in how products are rounded, so scores and close ranks may differ.
{limits}"""
_VECTORS = (
    "Gender, age and country change the suggestions, as clip and history do: each value has its "
    "own vector, and so has unknown. Users with a value therefore get the hashtags that such users "
    "used in training, which reflect both preferences and stereotypes."
)


def _verdict(run: Trained) -> str:
    """Returns what to know about the other references; "" for a run from before they were."""
    sentences = verdict(run.scores)
    seen = "Nearest neighbours and ridge use the mean feature of the clip."
    return " ".join(["", seen, *sentences]).replace("+-", "±") if sentences else ""


def card(run: Trained, facts: dict[str, Any]) -> str:
    """Returns the model card in Markdown.

    Args:
        run: the exported run.
        facts: the content of `model.json` without the checksums.
    """
    simulated, queries = facts["simulated"], facts["queries"]
    data, features = run.metrics.get("data") or {}, run.facts["features"]
    names = ("train_videos", "validation_videos", "test_videos", "hashtags", "users")
    seeds, error = run.metrics.get("num_seeds", 1), run.scores["calibration", "error@10"].mean
    systems = [
        [system.title, *(run.scores[system.key, name].mean for name in COLUMNS)]
        for system in run.scores.systems(run.system)
    ]
    slices = [
        [x.name, x.num_videos, *(x.means.get(name) for name in _SLICES)]
        for x in read_slices(run.metrics.get("slices"))
    ]
    values = {
        "genders": run.view.genders,
        "age buckets": run.view.ages,
        "countries": run.view.countries,
    }
    limits = []
    if "random" in str(features.get("weights", "")):
        limits.append("- Features come from random weights: fine for a trial, not for results.\n")
    if simulated:
        limits.append("- It was trained on simulated data and is useless for real clips.\n")
    return _CARD.format(
        **facts | {"platforms": ", ".join(facts["platforms"])},
        hashtags=count_of(facts["num_hashtags"], "hashtag"),
        simulated_data="\n\n**The training data are simulated.** Users, hashtags and clips are not "
        "real; the figures below say nothing about real people." * simulated,
        queries_line=f"- `queries.npy`, `video_ids.json`: queries of the {queries} videos.\n"
        * (queries != "none"),
        sizes=", ".join(f"{data[name]} {name.replace('_', ' ')}" for name in names if name in data),
        simulated_note=" (simulated)" * simulated,
        extractor=features.get("extractor", features.get("weights", "unknown")),
        features_fingerprint=features.get("fingerprint", "none"),
        data=run.facts.get("data"),
        mean=f", mean over {seeds} seeds" * (seeds > 1),
        simulated_metrics="; simulated data" * simulated,
        metrics=_table(["", *COLUMNS], systems),
        verdict=_verdict(run),
        slices="\nBy frequency of hashtags in training (only those hashtags count), and by what "
        f"is known about users:\n\n{_table(['', 'videos', *_SLICES], slices)}\n" * bool(slices),
        attributes="This system does not use any input about the user."
        if run.config.model.name.value == "bl"
        else _VECTORS,
        known=", ".join(f"{len(names) - 1} {kind}" for kind, names in values.items()),
        confidence=" The confidence is one, fitted on validation clips; it is off by "
        f"{100 * error:.1f} percentage points on average over the ten best of test clips."
        if is_number(error)
        else "",
        limits="".join(limits),
    )


def _table(head: list[str], rows: Iterable[list[Any]]) -> str:
    def line(cells: list[Any]) -> str:
        texts = [
            str(cell) if isinstance(cell, str | int) else f"{cell:.4f}" if is_number(cell) else "-"
            for cell in cells
        ]
        return f"| {' | '.join(texts)} |"

    return "\n".join([line(head), line(["---", *["---:"] * (len(head) - 1)]), *map(line, rows)])
