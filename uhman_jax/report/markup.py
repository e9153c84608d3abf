"""HTML that is escaped by construction: plain strings are text, only `Markup` is markup."""

import html
from collections.abc import Iterable
from typing import TypeAlias, Union

_VOID = frozenset(("br", "img", "input", "meta"))


class Markup(str):
    """A string that is HTML already."""


Child: TypeAlias = Union[str, None, Iterable["Child"]]  # noqa: UP007 - recursive


def join(*children: Child) -> Markup:
    """Concatenates children; text is escaped, None is left out, iterables are flattened.

    >>> join("a < b", Markup("<br>"), None, ["c", "d"])
    'a &lt; b<br>cd'
    """
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(html.escape(child))
        elif child is not None:
            parts.append(str(join(*child)))
    return Markup("".join(parts))


def element(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """One HTML element; `class_` is `class` and `aria_label` is `aria-label`.

    An attribute that is None or False is left out, one that is True stands alone.

    >>> element("a", "1 < 2", class_='"x"')
    '<a class="&quot;x&quot;">1 &lt; 2</a>'
    """
    head = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        head += " " + key.rstrip("_").replace("_", "-")
        if value is not True:
            head += f'="{html.escape(str(value))}"'
    if name in _VOID:
        return Markup(f"<{head}>")
    return Markup(f"<{head}>{join(*children)}</{name}>")
