"""The default demo: generated scenes and the campaign file that describes them."""

import json
from dataclasses import asdict
from pathlib import Path

from demo.scenes import FILES, SceneSize, generate

CAMPAIGN_FILE = Path(__file__).parent / "demo.toml"


def generated_campaign(folder: Path, *, size: SceneSize | None = None, seed: int = 0) -> Path:
    """Generate the demo's scenes in a folder, unless they are there, and return their campaign file."""
    size = size or SceneSize()
    made_from = json.dumps({**asdict(size), "seed": seed})
    note = folder / "generated.json"
    is_complete = all((folder / name).exists() for name in FILES)
    if not is_complete or not note.exists() or note.read_text() != made_from:
        note.unlink(missing_ok=True)
        generate(folder, size, seed=seed)
        note.write_text(made_from)
    file = folder / CAMPAIGN_FILE.name
    file.write_text(CAMPAIGN_FILE.read_text())
    return file
