"""Puts the page together."""

import pathlib
from typing import Any

from uhman_jax import __version__
from uhman_jax.config import to_dict
from uhman_jax.dataset.duplicates import describe_copies
from uhman_jax.report import plots, tables
from uhman_jax.report.clips import clip_cards
from uhman_jax.report.document import document, paragraph, part
from uhman_jax.report.examples import Example
from uhman_jax.report.markup import Markup, element, join
from uhman_jax.run_directory import FinishedRun
from uhman_jax.scores import MODEL, is_number, read_slices

_HEADLINE = "P@5"  # the metric of the headline and of the gap
_K = 5


def render(
    run: FinishedRun,
    curve: list[dict[str, Any]],
    examples: list[Example],
    root: pathlib.Path | None,
) -> str:
    """Returns the page as text.

    Args:
        run: its settings and scores.
        curve: one entry per validation, in step order.
        examples: test clips to show.
        root: raw dataset whose clips are drawn; None: only attention maps.
    """
    title = f"{run.config.name} · {run.system} report"
    parts = [
        _header(run),
        _scores(run),
        _learning(run, curve),
        _slices(run),
        _confidence(run),
        _attention(run),
        _clips(run, examples, root),
        _settings(run),
    ]
    return document(title, parts)


def _header(run: FinishedRun) -> Markup:
    num_seeds = run.metrics.get("num_seeds", 1)
    badges = [
        element("li", "Simulated data", class_="simulated")
        if run.metrics.get("simulated")
        else element("li", "Real data"),
        element("li", f"Model {run.system}"),
        element("li", f"Features: {run.metrics.get('extractor', 'unknown')}"),
        element("li", "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"),
    ]
    return element(
        "header",
        paragraph("Hashtag recommendation for micro-videos · run report", "eyebrow"),
        element("h1", run.config.name),
        element("ul", badges, class_="badges"),
        _lead(run),
        _stats(run),
    )


def _lead(run: FinishedRun) -> Markup:
    """One sentence that says what the headline metric means for a person."""
    found = run.scores[MODEL, _HEADLINE].mean
    if not is_number(found):
        return paragraph("This run has not been evaluated on its test clips.", "lead")
    text = (
        f"Of the five hashtags that {run.system} suggests first for an unseen clip, "
        f"{_K * found:.2f} are right on average."
    )
    popularity = run.scores["popularity", _HEADLINE].mean
    oracle = run.scores["oracle", _HEADLINE].mean
    if is_number(popularity):
        text += f" Always suggesting the most used ones finds {_K * popularity:.2f}"
        if is_number(oracle):
            text += f", and the best ranking there is finds {_K * oracle:.2f}"
        text += "."
    return paragraph(text, "lead")


def _stats(run: FinishedRun) -> Markup:
    tiles: list[tuple[str, Any]] = []
    for name in (_HEADLINE, "P@10", "R@10"):
        score = run.scores[MODEL, name]
        if is_number(score.mean):
            shown = join(tables.number(score.mean), tables.interval(score))
            tiles.append((f"{name} on test clips", shown))
    gap = run.scores["gap_closed", _HEADLINE]
    if is_number(gap.mean):
        shown = join(tables.percent(gap.mean), tables.interval(gap, tables.percent))
        tiles.insert(0, ("Gap to the oracle closed", shown))
    cells = [element("div", element("dt", name), element("dd", value)) for name, value in tiles]
    return element("dl", cells, class_="card stats")


def _scores(run: FinishedRun) -> Markup:
    """The gap figure, the tables with their reference rows, and what the words mean."""
    several = run.metrics.get("num_seeds", 1) > 1
    note = "One value per clip, averaged over the test clips; every hashtag is ranked."
    if several:
        note += (
            f" {run.system} is the mean over {run.metrics['num_seeds']} seeds; "
            "± is the 95 % interval of that mean (Student's t)."
        )
    return part(
        "How good is it?",
        element(
            "figure",
            element("figcaption", f"{_HEADLINE} on the test clips"),
            tables.gap_figure(run, _HEADLINE),
            _gap_text(run),
            class_="card",
        ),
        paragraph(note, "note"),
        tables.metric_tables(run),
        tables.seeds_table(run),
        _glossary(run),
    )


def _gap_text(run: FinishedRun) -> Markup:
    """Explains the gap, or why there is none to see."""
    gap = run.scores["gap_closed", _HEADLINE].mean
    if not is_number(gap):
        return paragraph(
            "The data is real, so nobody knows the best possible ranking. The popularity and "
            "user rows are what counting alone gets, without any learning.",
            "note",
        )
    text = (
        "The shaded band runs from the popularity ranking to the oracle, which ranks by the true "
        "probabilities of the simulated world. "
    )
    systems = ("popularity", MODEL, "observable_oracle")
    low, value, high = (run.scores[system, _HEADLINE].mean for system in systems)
    if gap < 0:
        text += f"{run.system} is below it: in this run it has learned less than popularity knows."
    else:
        text += f"{run.system} closes {tables.percent(gap)} of it"
        if high > low:
            text += (
                f", and {tables.percent((value - low) / (high - low))} of the way to the "
                "observable oracle: the best that any model can do, since a user's private preference "
                "shows in no input"
            )
        text += "."
    if run.metrics.get("num_seeds", 1) > 1:
        text += " Dots are single seeds; the whisker is the 95 % interval of their mean."
    return paragraph(text, "note")


def _glossary(run: FinishedRun) -> Markup:
    words = [
        ("P@k", "Of the first k suggestions, the share that the user really wrote."),
        ("R@k", "Of the hashtags that the user wrote, the share found among the first k."),
        ("F1@k", "Harmonic mean of the two averages above."),
        ("NDCG@10", "Like P@10, but a hit counts more the higher it stands; 1 is perfect."),
        ("MRR", "One over the rank of the first hit, averaged over clips."),
        ("MAP", "Mean over a clip's hashtags of the precision where each of them stands."),
        ("Popularity", "Suggests the most used training hashtags to everybody."),
        ("User history", "Suggests what the user wrote before; then as the popularity row."),
        (
            "User attributes",
            "Suggests what people of this gender, age and country use more than others do: naive "
            "Bayes over training counts. Like the two above it learns nothing and sees no clip.",
        ),
    ]
    if run.metrics.get("simulated"):
        words += [
            (
                "Oracle",
                "Ranks by the true probability of each hashtag, private preference included.",
            ),
            ("Observable oracle", "The same, knowing only what a model is shown."),
        ]
    rows = [(element("dt", word), element("dd", meaning)) for word, meaning in words]
    summary = element("summary", "What the words mean")
    return element("details", summary, element("dl", rows, class_="glossary"), class_="card")


def _learning(run: FinishedRun, curve: list[dict[str, Any]]) -> Markup | None:
    if not curve:
        return None
    metric = run.config.evaluate.select_by
    figures = [
        element("figure", figure, class_="card")
        for figure in (plots.score_curve(curve, metric), plots.loss_curve(curve))
    ]
    text = (
        f"A dot marks the validation {metric} that picked the parameters to keep; the test clips "
        "play no part in this. Dotted verticals: the learning rate fell."
    )
    if run.metrics.get("num_seeds", 1) > 1:
        text += " Thin lines are single seeds, the thick one is their mean."
    note = paragraph(text, "note")
    return part("How it learned", note, element("div", figures, class_="grid"))


def _slices(run: FinishedRun) -> Markup | None:
    figures = tables.slices(read_slices(run.metrics.get("slices")))
    if not figures:
        return None
    text = "The same test clips in groups. Bars are relative to the best group of each column."
    grid = element("div", figures, class_="grid")
    return part("Where it does well, and where not", paragraph(text), grid)


def _confidence(run: FinishedRun) -> Markup | None:
    reliability = run.metrics.get("reliability")
    if not reliability:
        return None
    error = 100 * run.scores["calibration", "error@10"].mean
    text = (
        "Of the ten best hashtags of every test clip, by the confidence they were suggested with: "
        "how many of them were right. On the dotted line it says what is true; larger dots stand "
        f"for more suggestions. On average it is off by {error:.1f} percentage points. It was "
        "fitted on the validation clips, to the first seed."
    )
    figure = element("figure", plots.reliability_plot(reliability), class_="card")
    cards = element("div", figure, tables.reliability(reliability), class_="grid")
    return part("Can its confidence be trusted?", paragraph(text), cards)


def _attention(run: FinishedRun) -> Markup | None:
    facts = tables.attention_facts(run.scores)
    if facts is None:
        return None
    text = (
        "The simulated world knows which regions of which frames hold which object. This is the "
        "share of the model's attention that falls on them, and how often its most attended region "
        "is one; the dashed line is the share if it looked everywhere alike."
    )
    card = element("div", facts, class_="card")
    return part("Does it look at the right place?", paragraph(text), card)


def _clips(run: FinishedRun, examples: list[Example], root: pathlib.Path | None) -> Markup | None:
    if not examples:
        return None
    text = (
        "Drawn by lot from the test clips, good and bad. Colour over a frame is where the model "
        "looked, for this user; no colour is an even share or less. The bar under a frame is the "
        "frame's share of the whole clip, the dashed line an even share."
    )
    box = element("input", type="checkbox", id="heat", checked=True)
    scale = element("span", "even share", element("i", class_="ramp"), "most")
    hit = element("span", "✓ #hit", class_="tag hit")
    legend = element(
        "div",
        element("label", box, "Show attention", class_="switch"),
        scale,
        element("span", hit, " suggested and written by the user"),
        class_="legend",
    )
    preprocess = run.config.preprocess
    sampling = preprocess.frames_per_second, preprocess.max_frames
    cards = clip_cards(examples, root, sampling)
    return part("Test clips", paragraph(text), legend, cards)


def _settings(run: FinishedRun) -> Markup:
    data = [
        element("div", element("dt", key.replace("_", " ")), element("dd", tables.count(value)))
        for key, value in _flatten(run.metrics.get("data") or {})
    ]
    config = [
        element("div", element("dt", key), element("dd", str(value)))
        for key, value in _flatten(to_dict(run.config) | ({"run": run.facts} if run.facts else {}))
    ]
    summary = element("summary", "Every setting of the run")
    copies = describe_copies(run.metrics.get("data") or {}, run.config.data.duplicates)
    return part(
        "Data and settings",
        element("div", element("dl", data, class_="facts"), class_="card") if data else None,
        paragraph(f"Duplicates: {copies}", "note") if copies else None,
        element("details", summary, element("dl", config, class_="facts"), class_="card"),
        paragraph(f"Written by uhman_jax {__version__}.", "note"),
    )


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested dicts as dotted keys."""
    leaves = []
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves += _flatten(value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves
