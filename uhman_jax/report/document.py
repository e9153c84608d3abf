"""A page that stands alone, and the pieces that all pages are made of."""

from uhman_jax.report.markup import Child, Markup, element
from uhman_jax.report.style import CSS

# Nothing is loaded and nothing runs, whatever a hashtag holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, *children: Child, css: str = "") -> str:
    """A whole page as text; `css` comes after the style sheet that all share."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(CSS + css)),
    )
    body = element("body", element("main", children))
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def part(title: str, *children: Child) -> Markup:
    """A section with its heading."""
    return element("section", element("h2", title), children, class_="part")


def paragraph(text: str, css: str | None = None) -> Markup:
    """Text of a class."""
    return element("p", text, class_=css)
