"""Messages of other programs, made readable: one line of text, never an HTML page."""

import html
import re

LIMIT = 300
_PAGE = re.compile(r"<!doctype\s+html|<html\b|<head\b|<body\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z!][^<>]*>")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")


def one_line(text: object, limit: int = LIMIT) -> str:
    """A text of another program as one line, without markup and not too long.

    Of a whole HTML page, also one quoted within a text, only the title is left.

    Args:
        text: What it said; anything that `str` takes.
        limit: Characters at most.
    """
    said = str(text)
    if page := _PAGE.search(said):
        title = _TITLE.search(said, page.start())
        said = f"{said[: page.start()]} {title.group(1) if title else ''}"
    said = _SPACE.sub(" ", html.unescape(_TAG.sub(" ", said))).strip()
    return said if len(said) <= limit else said[: limit - 1].rstrip() + "…"


def error_text(error: BaseException) -> str:
    """A library's error as `one_line`, without a final full stop; its cause's, if it only refers to that (rasterio)."""
    text = one_line(error)
    if "previous exception" in text and error.__cause__ is not None:
        return error_text(error.__cause__)
    return text.rstrip(".") or type(error).__name__
