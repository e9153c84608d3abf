"""The page that shows why: frames with attention, suggestions, and what carried each of them."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from uhman_jax.recommend.profile import Profile
from uhman_jax.recommend.recommender import Suggestion
from uhman_jax.recommend.why import Why
from uhman_jax.report.document import document, part
from uhman_jax.report.markup import Markup, element, join
from uhman_jax.report.strip import frame_strip, picture
from uhman_jax.report.style import CSS
from uhman_jax.report.tables import percent
from uhman_jax.storage import shown

_IMAGE_BYTES = 30_000  # of one frame
_CSS = """
.duo{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:16px}
.duo>.card{margin:0}
.list{display:grid;gap:2px;margin:10px 0 0;padding:0;list-style:none}
.list li{display:grid;grid-template-columns:1.6em minmax(0,1fr) 5.4em 3.4em;gap:10px;
align-items:center;padding:5px 0;border-top:1px solid var(--line);font-size:.95rem}
.list li:first-child{border-top:0}
.list bdi{overflow-wrap:anywhere;font-weight:600}
.list small{color:var(--muted);margin-left:.5em;white-space:nowrap;font-weight:400}
.list .new{color:var(--hit)}
.list .share{text-align:right;font-variant-numeric:tabular-nums}
.meter{height:9px;border-radius:5px;background:var(--wash);overflow:hidden}
.meter i{display:block;height:100%;background:var(--model);border-radius:5px}
.carried{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr));gap:16px}
.carried .card{margin:0;padding:14px}
.clip>h3{margin-bottom:12px}
.carried h3{display:flex;justify-content:space-between;gap:10px;margin-bottom:10px}
.carried .picture{max-width:140px}
.carried .both{display:flex;gap:14px;align-items:flex-end}
.carried .side{flex:1;min-width:0}
.columns{display:flex;align-items:flex-end;gap:2px;height:64px;border-bottom:1px solid var(--line)}
.columns i{flex:1;background:var(--model);border-radius:2px 2px 0 0;opacity:.45;min-height:1px}
.columns i.top{opacity:1}
.list+.note,.both+.note{margin:10px 0 0}
@media (max-width:480px){.list li{grid-template-columns:1.3em minmax(0,1fr) 2.8em 3em;gap:8px}}
"""

_WITHIN = """
&{background:none;contain:inline-size}
section.part{margin-top:28px}
section.part:first-child{margin-top:0}
.list{padding:0!important;margin:10px 0 0!important}
.list li{margin:0!important}
"""


@dataclasses.dataclass(frozen=True)
class Side:
    """One profile's part of the page.

    Attributes:
        profile: the user.
        suggestions: best first.
        why: of these suggestions, in their order; None where the model has no attention.
        notes: what the model could not use of the profile.
    """

    profile: Profile
    suggestions: list[Suggestion]
    why: Why | None
    notes: list[str]

    @property
    def attention(self) -> Why:
        """`why`, where it is known to be there."""
        assert self.why is not None
        return self.why


def render(
    clip: pathlib.Path,
    times_F: np.ndarray,
    images: list[Image.Image],
    sides: list[Side],
    metrics: dict[str, Any],
) -> str:
    """The page as text.

    Args:
        clip: for its name.
        times_F: seconds of the frames.
        images: the frames; empty where they can't be shown.
        sides: of one profile, or of two to compare; the first is explained.
        metrics: of the run, for what is known of its attention.
    """
    first, *others = sides
    other = others[0] if others else None
    parts = [
        _header(clip, first.profile, metrics),
        part("Suggestions", _lists(first, other)),
        part("Where it looked", _attention_text(), _strips(times_F, images, sides)),
        part("What carried each hashtag", _carried_text(), _carried(times_F, images, first)),
        part("What this proves, and what not", _limits(metrics)),
    ]
    return document(f"{shown(clip.name)} · why these hashtags", parts, css=_CSS)


def fragment(
    times_F: np.ndarray, images: list[Image.Image], sides: list[Side], metrics: dict[str, Any]
) -> str:
    """The suggestions, attention and what carried them, to stand within another page.

    The rules of style are nested, so that they touch nothing around. See `render` for the
    arguments.
    """
    first, *others = sides
    rules = (CSS + _CSS).replace(":root{", "&{").replace("body{", "&{")
    attention = []
    if first.why is not None:
        attention = [
            part("Where it looked", _attention_text(), _strips(times_F, images, sides)),
            part("What carried each hashtag", _carried_text(), _carried(times_F, images, first)),
            part("What this proves, and what not", _limits(metrics)),
        ]
    body = join(part("Suggestions", _lists(first, others[0] if others else None)), attention)
    style = element("style", Markup(f".uhman{{{rules}{_WITHIN}}}"))
    return join(style, element("div", body, class_="uhman"))


def _header(clip: pathlib.Path, profile: Profile, metrics: dict[str, Any]) -> Markup:
    badges = [element("li", f"Features: {metrics.get('extractor', 'unknown')}")]
    if metrics.get("simulated"):
        badges.insert(0, element("li", "Trained on simulated data", class_="simulated"))
    return element(
        "header",
        element("p", "Why these hashtags", class_="eyebrow"),
        element("h1", element("bdi", shown(clip.name))),
        element("p", "Posted by: ", element("bdi", profile.describe()), class_="lead"),
        element("ul", badges, class_="badges"),
    )


def _lists(first: Side, other: Side | None) -> Markup:
    if other is None:
        return element("div", _list(first, None), class_="card")
    cards = [_list(first, None), _list(other, first)]
    return element("div", [element("div", card, class_="card") for card in cards], class_="duo")


def _list(side: Side, before: Side | None) -> Markup:
    """The suggestions for a profile; with another one's, what has moved."""
    names = [suggestion.hashtag for suggestion in before.suggestions] if before else []
    rows = []
    known = [s.confidence for s in side.suggestions if s.confidence is not None]
    scale = max(known, default=1.0) or 1.0
    for rank, suggestion in enumerate(side.suggestions, start=1):
        moved = None
        if before:
            moved = element("small", "new", class_="new")
            if suggestion.hashtag in names:
                was = names.index(suggestion.hashtag) + 1
                moved = element("small", f"was {was}") if was != rank else None
        share, meter = "–", None
        if suggestion.confidence is not None:
            share = percent(suggestion.confidence)
            width = f"width:{100 * suggestion.confidence / scale:.1f}%"
            meter = element("div", element("i", style=width), class_="meter")
        name = element("span", element("bdi", f"#{suggestion.hashtag}"), moved)
        rows.append(
            element(
                "li",
                element("span", str(rank), class_="place"),
                name,
                element("span", meter),
                element("span", share, class_="share"),
            )
        )
    notes = [element("p", note[:1].upper() + note[1:] + ".", class_="note") for note in side.notes]
    title = element("h3", element("bdi", side.profile.describe()))
    return join(title, element("ol", rows, class_="list"), notes)


def _attention_text() -> Markup:
    return element(
        "p",
        "Colour over a frame is the share of attention that each region gets for this user; no "
        "colour is an even share or less. The bar under a frame is the frame's share of the "
        "clip, the dashed line an even share.",
    )


def _strips(times_F: np.ndarray, images: list[Image.Image], sides: list[Side]) -> Markup:
    cards = []
    for side in sides:
        why = side.attention
        strip = frame_strip(times_F, why.regions_FM, why.frames_F, images, _IMAGE_BYTES)
        title = element("h3", element("bdi", side.profile.describe()))
        cards.append(element("article", title, strip, class_="card clip"))
    return join(cards)


def _carried_text() -> Markup:
    return element(
        "p",
        "Attention is the same for all hashtags. Here every region and every frame is hidden in "
        "turn, and a hashtag's score computed again: columns show what it loses without each "
        "frame, colour what it loses without each region of the frame that carried most. A region "
        "without which it would gain has no colour.",
    )


def _carried(times_F: np.ndarray, images: list[Image.Image], side: Side) -> Markup:
    cards = []
    for place, suggestion in enumerate(side.suggestions):
        lost_F, lost_FM = side.attention.lost_TF[place], side.attention.lost_TFM[place]
        if not len(lost_F):
            continue
        top = int(np.argmax(lost_F))
        cards.append(_carried_card(suggestion, times_F, images, lost_F, lost_FM, top))
    if not cards:
        return element("p", "The clip has no frame.", class_="placeholder")
    return element("div", cards, class_="carried")


def _carried_card(
    suggestion: Suggestion,
    times_F: np.ndarray,
    images: list[Image.Image],
    lost_F: np.ndarray,
    lost_FM: np.ndarray,
    top: int,
) -> Markup:
    time = f"{times_F[top]:.1f}\u202fs"
    image, levels_YX = images[top] if images else None, lost_levels(lost_FM)[top]
    shown = picture(image, levels_YX, time, f"Regions at {time}", _IMAGE_BYTES)
    most = max(float(lost_F.max()), 1e-9)
    columns = [
        element(
            "i",
            class_="top" if f == top else None,
            style=f"height:{100 * max(float(lost) / most, 0):.0f}%",
        )
        for f, lost in enumerate(lost_F)
    ]
    return element(
        "article",
        element("h3", element("bdi", f"#{suggestion.hashtag}")),
        element(
            "div",
            element("div", shown, class_="picture"),
            element("div", element("div", columns, class_="columns"), class_="side"),
            class_="both",
        ),
        element(
            "p",
            f"Most from {time}: without it the score of {suggestion.score:.3f} falls by "
            f"{lost_F[top]:.3f}."
            if lost_F[top] > 0
            else "No single frame carries it: hiding any one raises the score.",
            class_="note",
        ),
        class_="card",
    )


def lost_levels(lost_FM: np.ndarray) -> np.ndarray:
    """Strength of the heat in [0, 1] per frame and cell: the loss, in units of the clip's largest.

    >>> lost_levels(np.array([[0.0, 2.0, -1.0, 1.0]])).tolist()
    [[[0.0, 1.0], [0.0, 0.5]]]
    """
    side = round(lost_FM.shape[1] ** 0.5)
    levels_FM = np.maximum(lost_FM, 0) / max(float(lost_FM.max(initial=0)), 1e-12)
    return levels_FM.reshape(len(lost_FM), side, side)


def _limits(metrics: dict[str, Any]) -> Markup:
    texts = [
        "Both pictures are about the model, not about people: they show what moved its scores, not "
        "why somebody would write a hashtag. Attention is a weight that was used, no reason: a "
        "region may have much of it and change little. Hiding one region at a time misses what "
        "two regions say alike, since the other one still says it.",
        "A region is a cell of the image network's last layer, and each such cell sees far more of "
        "the picture than its square: colour may lie beside the thing that it is about.",
    ]
    texts += [_measured(metrics)] if _measured(metrics) else []
    return element("div", [element("p", text) for text in texts], class_="card")


def _measured(metrics: dict[str, Any]) -> str:
    """How often the run's attention was right where the truth is known; else nothing."""
    names = [f"attention/top_region_{kind}" for kind in ("object", "tagged")]
    found = [metrics.get(name) for name in (*names, *(f"{name}_chance" for name in names))]
    known = [value for value in found if value is not None]
    if len(known) < len(found):
        return ""
    planted, tagged, planted_chance, tagged_chance = map(percent, known)
    return (
        f"In this run's simulated test clips the most attended region held one of the objects that "
        f"were planted in {planted} of the clips (by lot {planted_chance}), and the one that the "
        f"user tagged in {tagged} (by lot {tagged_chance})."
    )
