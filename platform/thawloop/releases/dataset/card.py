"""The data card: what a person must know before using a release."""

from typing import Any

from thawloop.releases.separation import in_words


def data_card(dataset: dict[str, Any], counts: dict[str, Any], classes: dict[str, int]) -> str:
    """README.md of a dataset directory.

    A release's files can be made again, byte for byte: one that was frozen before 0.2 keeps the words of its time.

    Args:
        dataset: What dataset.json holds.
        counts: Per split: tiles, annotations.
        classes: Annotations per class.
    """
    provenance, grid = dataset["provenance"], dataset["grid"]
    side = grid["tile_size"] * grid["pixel_size"]
    before_terms = "licence" not in provenance  # frozen before 0.2
    lines = [
        f"# {dataset['name']} {dataset['version']}",
        "",
        f"{provenance['campaign']}. Imagery of {' to '.join(provenance['period'])}. Frozen {provenance['frozen']}.",
        "",
        "| split | tiles | annotations |",
        "|---|---|---|",
        *(f"| {split} | {row['tiles']} | {row['annotations']} |" for split, row in counts.items()),
        "",
        *(_SEPARATION_BEFORE if before_terms else _separation(provenance["left_out"])),
        "",
        "## Classes",
        "",
        *(f"- {name}: {number} annotations" for name, number in classes.items()),
        "",
        "## Pixels",
        "",
        f"Tiles of {grid['tile_size']} × {grid['tile_size']} px, {grid['pixel_size']:g} m per pixel ({side:g} m), in "
        f"EPSG:{grid['srid']}; NaN where there is no data.",
        "",
        "| modality | bands | range | tiles that have it |",
        "|---|---|---|---|",
        *(_modality_row(item, provenance["coverage"]) for item in dataset["modalities"]),
        "",
        *([] if before_terms else _use(provenance)),
        "## Imagery and licences",
        "",
        *_scene_lines(provenance["scenes"]),
        "",
        "## Labels",
        "",
        *_label_lines(provenance),
        "",
        "Labels are people's judgement: experts agree with each other on thaw slumps at a median IoU near 0.6.",
        "`manifest.json` holds the SHA-256 of every file.",
    ]
    return "\n".join(lines) + "\n"


_SEPARATION_BEFORE = [
    "Splits are spatial: a tile belongs to the split of its region, and no train or val tile shares ground with a "
    "test tile."
]


def _separation(left_out: dict[str, Any]) -> list[str]:
    lines = [
        "Splits are spatial: a tile belongs to the split of its region. No train or val tile shares ground with a test "
        "tile, nor a train tile with a val tile. An object on tiles of two splits counts in the higher one (test, then "
        "val) and is ignored (`iscrowd`) on the tiles of the other."
    ]
    sentences = in_words(left_out)
    named = ["", "Left out or ignored (`dataset.json` names each):", "", *(f"- {text}" for text in sentences)]
    return lines + named if sentences else lines


def _use(provenance: dict[str, Any]) -> list[str]:
    return [
        "## Use",
        "",
        f"Licence of the labels: {provenance['licence'] or 'not stated; ask who made them before publishing'}.",
        *([f"Please cite: {provenance['citation']}"] if provenance["citation"] else []),
        "",
    ]


def _modality_row(item: dict[str, Any], coverage: dict[str, int]) -> str:
    low, high = item["range"]
    unit = f" {item['unit']}" if item["unit"] else ""
    anchor = " (anchor)" if item["anchor"] else ""
    have = coverage[item["name"]]
    return f"| {item['name']}{anchor} | {', '.join(item['bands'])} | {low:g} to {high:g}{unit} | {have} |"


def _scene_lines(scenes: list[dict[str, Any]]) -> list[str]:
    if not scenes:
        return ["No scene is registered for this campaign's regions."]
    return [
        f"- {scene['modality']}: {scene['file']}, {scene['acquired']}, {scene['provider'] or 'provider not stated'}, "
        f"licence: {scene['licence'] or 'not stated'}"
        for scene in scenes
    ]


def _label_lines(provenance: dict[str, Any]) -> list[str]:
    drawn = ["- drawn by annotators in Label Studio"] if "annotations" in provenance["sources"] else []
    return drawn + [
        f"- imported from {row['file']} on {row['imported']} (SHA-256 {row['checksum'][:16]})"
        for row in provenance["imports"]
    ]
