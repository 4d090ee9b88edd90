"""The campaign file: one small TOML file that describes an annotation effort. docs/campaign-file.md lists every key."""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from thawloop.core.errors import Refused
from thawloop.setup.lines import key_lines
from thawloop.setup.mistakes import Mistakes
from thawloop.setup.spec import CampaignSpec

__all__ = ["CampaignFileError", "CampaignSpec", "parse_campaign_file"]


class CampaignFileError(Refused):
    """A campaign file cannot be used; the message names the file, the lines and the keys."""


def parse_campaign_file(path: Path) -> CampaignSpec:
    """Read a campaign file. Nothing but the file itself is opened: whether rasters exist is found at ingest.

    Args:
        path: The TOML file. Relative paths in it start at its folder; `${THAWLOOP_REAL_DATA}` may begin a path.

    Raises:
        CampaignFileError: the file cannot be read, is not TOML, or keys are unknown, missing or of wrong values; the
            message names file, line and key of each.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CampaignFileError(f"{path}: the campaign file cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise CampaignFileError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CampaignFileError(f"{path}: not valid TOML: {error}.") from error
    try:
        return CampaignSpec.model_validate(values, context={"file": path})
    except ValidationError as error:
        mistakes = Mistakes(error, CampaignSpec.model_json_schema(), values, key_lines(text))
        raise CampaignFileError(mistakes.listed(path)) from None
