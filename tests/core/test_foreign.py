"""What other programs say, as one line."""

import pytest

from thawloop.core.foreign import LIMIT, error_text, one_line


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


def test_an_error_that_points_to_its_cause_says_what_that_says():
    error = RuntimeError("Read failed. See previous exception for details.")
    error.__cause__ = ValueError("band 1,\n block 3 is damaged.")
    assert error_text(error) == "band 1, block 3 is damaged"
    assert error_text(ValueError()) == "ValueError"
