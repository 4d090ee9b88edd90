"""The report: complete in itself, true, and safe against names that strangers chose."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ml_backend.detector import Detection, Evaluation, read_dataset
from ml_backend.detector.calibration import Calibration
from ml_backend.detector.chips import ChipInput
from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.evaluation.findings import Findings, predict_split
from ml_backend.detector.evaluation.matching import match
from ml_backend.detector.evaluation.measure import measure
from ml_backend.detector.evaluation.report import write_report
from ml_backend.detector.evaluation.report.gallery import gallery
from ml_backend.detector.evaluation.report.pictures import crop_around, picture, render
from tests.detector.evaluation.answers import Answers, Oracle, detection, guesses, truths

EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(1)>&'"


LOG = {
    "training": {
        **{"step": [1.0, 2.0], "loss": [2.0, 1.5], "s0.loss_cls": [0.5, 0.25], "gradient_norm": [3.0, 2.0]},
        **{"seconds": [1.0, 2.0], "memory_mb": [500.0, 600.0], "learning_rate": [1e-4, 2e-4]},
    },
    "validation": {"step": [2.0], "ap50": [0.25], "ap": [0.125], "f1": [0.5]},
}


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def findings_of(dataset: DatasetSpec, answers: Answers) -> Findings:
    return predict_split(Oracle(dataset, answers), dataset, "train")  # type: ignore[arg-type]


def report(findings: Findings, file: Path, checkpoint: str = "checkpoint") -> tuple[Evaluation, Page]:
    matches, pairs = match(findings.truth, findings.predictions, 100)
    result = measure(findings, matches, pairs, Calibration(2.0, 0.4), resamples=50, seed=0)
    write_report(file, result, findings, matches, pairs, checkpoint, LOG)
    return result, Page(file.read_text())


def test_the_page_holds_figures_pictures_and_nothing_from_elsewhere(
    crowded: DatasetSpec, crowded_answers: list[list[Detection]], tmp_path: Path
) -> None:
    result, page = report(findings_of(crowded, crowded_answers), tmp_path / "report.html")
    for figure in (result.ap, result.f1_at_threshold, result.pixel_iou, *result.intervals["ap"]):
        assert f"{figure:.3f}" in page.text
    for words in (
        "mask AP50",
        "By region",
        "region-2",
        "By available modalities",
        "12 experts",
        "0.76",
        "Best mask AP50 0.250 at step 2",
        "False alarms",
        "lake",
    ):
        assert words in page.text
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert len(page.all("img")) == 9
    assert sum(tag == "title" for tag, _ in page.tags) == 1 + len(page.all("image"))
    links = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("href", "src", "srcset")]
    assert links
    assert all(link.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for link in links)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "url(" not in (tmp_path / "report.html").read_text()
    (policy,) = [attrs for attrs in page.all("meta") if "http-equiv" in attrs]
    assert policy["content"].startswith("default-src 'none'")
    for link in (link for link in links if "image/svg" in link):
        drawing = base64.b64decode(link.split(",")[1]).decode()
        assert not re.search(r"(href|src)=\"https?:", drawing.replace("http://www.w3.org", ""))


def test_names_from_strangers_are_text(own_dataset_dir: Path, tmp_path: Path) -> None:
    for file in (own_dataset_dir / "dataset.json", *own_dataset_dir.glob("annotations/*.json")):
        file.write_text(file.read_text().replace('"RTS"', json.dumps(EVIL)))
    dataset = replace(read_dataset(own_dataset_dir), name=EVIL, version=EVIL)
    answers = [[replace(d, class_name=EVIL) for d in found] for found in guesses(dataset, 0)]
    findings = findings_of(dataset, answers)
    tiles = tuple(replace(tile, region=EVIL) for tile in findings.tiles)
    _, page = report(replace(findings, tiles=tiles), tmp_path / "report.html", checkpoint=EVIL)
    assert not page.all("script")
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert page.text.count(EVIL) > 5


def test_file_names_from_strangers_are_text(own_dataset_dir: Path, tmp_path: Path) -> None:
    evil = EVIL.replace("/", "") + ".tif"
    file = own_dataset_dir / "annotations/train.json"
    data = json.loads(file.read_text())
    for chips in (own_dataset_dir / "chips").iterdir():
        (chips / data["images"][0]["file_name"]).rename(chips / evil)
    data["images"][0]["file_name"] = evil
    file.write_text(json.dumps(data))
    dataset = read_dataset(own_dataset_dir)
    _, page = report(findings_of(dataset, [[] for _ in dataset.tiles("train")]), tmp_path / "report.html")
    assert not page.all("script")
    assert evil in page.text


def test_the_gallery_sorts_hits_misses_and_false_alarms(dataset: DatasetSpec) -> None:
    tiles = dataset.tiles("train")
    speck = np.zeros((64, 64), dtype=bool)
    speck[:6, :6] = True
    answers = []
    for number, tile in enumerate(tiles):
        hits = [detection(mask, 0.9) for mask in truths(tile)[1:]]  # the first instance of every tile is missed
        answers.append([*hits, detection(speck, 0.5 + number / 100), detection(speck, 0.1)])
    findings = findings_of(dataset, answers)
    matches, pairs = match(findings.truth, findings.predictions, 100)
    alarms, misses, hits = gallery(findings, matches, pairs, 0.4)
    with_truth = [tile for tile in tiles if tile.instances]
    assert alarms.total == len(alarms.entries) == len(tiles)
    assert misses.total == len(with_truth)
    assert hits.total == sum(len(tile.instances) - 1 for tile in with_truth)
    assert alarms.entries[0].tile == tiles[-1].file_name
    assert "nothing is there" in alarms.entries[0].text
    areas = [int(re.search(r"([\d,]+) px", entry.text)[1].replace(",", "")) for entry in misses.entries]
    assert areas == sorted(areas, reverse=True)
    for entry, kind in ((alarms.entries[0], "prediction"), (misses.entries[0], "truth")):
        assert {outline.kind for outline in entry.outlines if outline.subject} == {kind}
    assert {outline.kind for outline in hits.entries[0].outlines if outline.subject} == {"truth", "prediction"}


def test_at_most_sixty_pictures_are_shown_of_any_number(dataset: DatasetSpec) -> None:
    corner = np.zeros((64, 64), dtype=bool)
    corner[:6, :6] = True
    findings = findings_of(dataset, [[detection(corner, 0.9)] * 9 for _ in dataset.tiles("train")])
    matches, pairs = match(findings.truth, findings.predictions, 100)
    sections = gallery(findings, matches, pairs, 0.1)
    assert sections[0].total == 72
    assert [len(section.entries) <= 20 for section in sections] == [True, True, True]


def test_nothing_annotated_and_nothing_found_makes_a_page_too(own_dataset_dir: Path, tmp_path: Path) -> None:
    file = own_dataset_dir / "annotations/train.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    dataset = read_dataset(own_dataset_dir)
    _, page = report(findings_of(dataset, [[] for _ in dataset.tiles("train")]), tmp_path / "report.html")
    assert "These tiles have no annotations" in page.text
    assert "nan" not in page.text.lower()


def test_pictures_are_stretched_and_transparent_where_there_is_no_data() -> None:
    array = np.linspace(0, 100, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    array[0, 0, 0] = np.nan
    valid = np.isfinite(array[0])
    valid[5, 5] = False
    pixels = render(array, valid)
    assert pixels.shape == (64, 64, 4)
    assert (pixels[0, 0, 3], pixels[5, 5, 3], pixels[9, 9, 3]) == (0, 0, 255)
    assert (pixels[1, 0, 0], pixels[63, 63, 0]) == (0, 255)
    chip = ChipInput({"dem": array}, {"dem": valid})
    told = picture(chip, "dem", crop_around((40, 40, 10, 10), 64, 64))
    image = Image.open(io.BytesIO(base64.b64decode(told.split(",")[1])))
    assert image.size == (48, 48)
    assert picture(chip, "rgb", crop_around((40, 40, 10, 10), 64, 64)) is None
    assert render(array, np.zeros((64, 64), bool))[..., 3].max() == 0


@pytest.mark.parametrize(
    ("box", "expected"),
    [((0, 0, 4, 4), (0, 0, 48, 48)), ((60, 60, 4, 4), (16, 16, 48, 48)), ((10, 10, 60, 20), (0, 0, 64, 64))],
)
def test_windows_stay_on_the_tile(box: tuple[int, ...], expected: tuple[int, ...]) -> None:
    window = crop_around(box, 64, 64)
    assert (window.x, window.y, window.width, window.height) == expected
