"""What other programs say, as one line."""

import pytest

from thawloop.core.foreign import LIMIT, one_line


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("not found", "not found"),
        ("two\n  lines\x00 and\ta NUL", "two lines and a NUL"),
        ("<p>Not <b>here</b></p>", "Not here"),
        ("a &lt; b &amp; c", "a < b & c"),
        ("3 < 4 and 5 > 4", "3 < 4 and 5 > 4"),
        (
            "<!DOCTYPE html>\n<html><head><title>Page\nnot found</title></head><body>all of it</body></html>",
            "Page not found",
        ),
        ("It said: <html><body>Bad gateway</body></html>", "It said:"),
        ("", ""),
        (None, "None"),
    ],
)
def test_a_line_without_markup_is_left(said, shown):
    assert one_line(said) == shown


def test_it_is_never_long():
    assert len(one_line("word " * 10_000)) <= LIMIT
    assert one_line("abcdef", 4) == "abc…"
