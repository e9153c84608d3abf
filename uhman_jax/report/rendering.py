"""Renders HTML pages from templates, in one style."""

import functools
import pathlib
from typing import Any

import jinja2

from uhman_jax import __version__
from uhman_jax.report.tables import count, number, percent
from uhman_jax.runtime.errors import count_of
from uhman_jax.scores import is_number

_HERE = pathlib.Path(__file__).parent


def render_page(template: str, *folders: pathlib.Path, **values: Any) -> str:
    """Returns a page, or a part of a page, as text.

    All values are escaped. A missing variable raises jinja2.UndefinedError.

    Args:
        template: name of a file in `folders` or in the templates of this package.
        folders: further folders of templates.
        values: variables of the template.
    """
    return _environment(*folders).get_template(template).render(values)


@functools.cache
def _environment(*folders: pathlib.Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _HERE / "templates", _HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats: dict[str, Any] = {"number": number, "percent": percent, "count": count}
    formats |= {"count_of": count_of, "length_of": length_of}
    environment.filters |= formats
    environment.globals.update(formats | {"version": __version__})
    environment.tests["known"] = is_number
    return environment


def length_of(fraction: float) -> str:
    """Formats a fraction as a CSS length.

    >>> length_of(0.125)
    '12.50%'
    """
    return f"{100 * fraction:.2f}%"
