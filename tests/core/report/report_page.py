"""A page as a browser would load and show it."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Its pictures, what it would fetch, tags that stay open, and its text."""

    VOID = ("meta", "img", "br", "polyline", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.images, self.requests, self.open, self.words = {}, [], [], []
        self.feed(text)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images[values["alt"]] = values["src"]
        self.requests += [v for k, v in attrs if k in ("src", "href") and not v.startswith("data:")]
        assert tag not in ("script", "link", "iframe")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "title"):
            self.words.append(data)
