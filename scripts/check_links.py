"""Checks that links in the documentation lead somewhere: files, folders and headings of this repository.

`python scripts/check_links.py [FILES…]`; without files, every Markdown file that git knows. Web addresses are not
visited: the check must give the same answer without a network.
"""

import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

REPOSITORY = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(
    r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)|<(?:img|a)\s[^>]*(?:src|href)=\"([^\"]+)\"",
    re.MULTILINE,
)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Print each broken link as `file:line: sentence`; exit code 1 when there is one."""
    files = [Path(argument).resolve() for argument in arguments] or tracked_markdown()
    broken = [problem for file in files for problem in broken_links(file)]
    for problem in broken:
        print(problem)
    print(f"{len(files)} Markdown files, {len(broken)} broken links")
    return 1 if broken else 0


def tracked_markdown() -> list[Path]:
    """The Markdown files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for line in listed.stdout.splitlines() if (path := REPOSITORY / line).exists()]


def broken_links(file: Path) -> Iterator[str]:
    """One sentence for each link of the file that leads nowhere."""
    text = file.read_text()
    visible = _CODE.sub(_blank, _FENCE.sub(_blank, text))
    for match in _LINK.finditer(visible):
        target = next(group for group in match.groups() if group)
        if re.match(r"[a-z][a-z0-9+.-]*:", target, re.IGNORECASE):
            continue
        line = visible.count("\n", 0, match.start()) + 1
        if problem := _problem(file, unquote(target)):
            yield f"{_name(file)}:{line}: {problem}"


def headings(file: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a file."""
    found: dict[str, int] = {}
    anchors = set()
    for match in _HEADING.finditer(_FENCE.sub(_blank, file.read_text())):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", lambda link: link.group(1) or "", match.group(1)).lower()
        anchor = "".join(c for c in plain if c in " -_" or unicodedata.category(c)[0] in "LN").replace(" ", "-")
        anchors.add(f"{anchor}-{found[anchor]}" if anchor in found else anchor)
        found[anchor] = found.get(anchor, 0) + 1
    return anchors


def _problem(file: Path, target: str) -> str | None:
    path_text, _, anchor = target.partition("#")
    path = (file.parent / path_text).resolve() if path_text else file
    if not path.is_relative_to(REPOSITORY) and file.is_relative_to(REPOSITORY):
        return f"{target!r} leads out of the repository"
    if not path.exists():
        return f"{target!r} leads nowhere: there is no {_name(path)}"
    if anchor and path.suffix == ".md" and anchor not in headings(path):
        return f"{target!r} leads nowhere: {_name(path)} has no heading #{anchor}"
    return None


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


def _blank(match: re.Match[str]) -> str:
    """Hide code while keeping line numbers."""
    return re.sub(r"[^\n]", " ", match.group())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
