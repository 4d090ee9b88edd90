"""Refusals are one printable line."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.sentences import LIMIT, one_sentence
from ml_backend.detector import DatasetError


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    line = one_sentence(text)
    assert len(line.splitlines()) <= 1
    line.encode()


def test_a_sentence_is_left_as_it_is() -> None:
    sentence = "File “größe.toml”, line 3: \u00a0`x` is 1 — it must be 2."
    assert one_sentence(sentence) == sentence


def test_of_a_long_one_place_and_remedy_are_left() -> None:
    line = one_sentence(f"File a.json: {'9' * 100_000}: correct it.")
    assert len(line) <= LIMIT + 3
    assert line.startswith("File a.json: 9")
    assert line.endswith("9: correct it.")


def test_refusals_of_the_detector_keep_to_it() -> None:
    assert str(DatasetError("a\nb\x1b[2Jc")) == "a b [2Jc"
