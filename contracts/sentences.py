"""A refusal is one sentence, whatever it quotes: values of strangers' files may hold line breaks, or be endless."""

import re

LIMIT = 2_000
# Control characters, line and paragraph separators, halves of surrogate pairs (which no encoder writes).
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def one_sentence(text: str, limit: int = LIMIT) -> str:
    """The text on one line; of one that is too long the beginning, which names the place, and the end, the remedy."""
    line = _UNPRINTABLE.sub(" ", text)
    if len(line) <= limit:
        return line
    return f"{line[: limit * 2 // 3]} … {line[-(limit // 3) :]}"
