"""Parses pages for tests."""

import base64
import io
from html.parser import HTMLParser

from PIL import Image


class Page(HTMLParser):
    """Elements, ids, text and tables of a page; elements must nest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.tables, self._open = [], "", [], []
        self.feed(text)
        assert not self._open
        self.ids = [attrs["id"] for _, attrs in self.elements if "id" in attrs]

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "br", "img", "input"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "small" and self._in_cell():
            self.tables[-1][-1][-1] += " "

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data if "style" not in self._open else ""
        if self._in_cell():
            self.tables[-1][-1][-1] += data

    def _in_cell(self):
        return "td" in self._open or "th" in self._open

    def cells(self):
        """Returns the texts of all tables by row and column."""
        return {
            (row[0], column): cell
            for head, *rows in self.tables
            for row in rows
            for column, cell in zip(head[1:], row[1:], strict=True)
        }

    def sources(self, kind):
        """Returns the decoded pictures of one format."""
        head = f"data:image/{kind};base64,"
        uris = [attrs["src"] for tag, attrs in self.elements if tag == "img"]
        data = [uri.removeprefix(head) for uri in uris if uri.startswith(head)]
        return [Image.open(io.BytesIO(base64.b64decode(datum))) for datum in data]
