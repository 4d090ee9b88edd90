"""The campaign file parser: what it accepts, and how it names each mistake."""

import datetime
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thawloop.setup.lines import key_lines
from thawloop.setup.reading import CampaignFileError, parse_campaign_file
from thawloop.setup.spec import Fractions, SplitSpec

FULL = """\
# A campaign with every section.
[campaign]
name = "peel"
title = "Peel Plateau"
classes = ["RTS", "lake"]
score_threshold = 0.25

[[classes]]
name = "lake"
color = "#0000ff"

[grid]
srid = 32608
pixel_size = 2.5
tile_size = 128

[period]
label = "2021"
start = 2021-06-01
end = 2021-09-30

[[modalities]]
name = "rgb"
anchor = true
scale = 1e-4
files = [
  {path = "s2.tif", bands = [3, 2, 1], date = 2021-08-21},  # a comment ] with } brackets
  "other.tif",
]

[[modalities]]
name = "ndvi"

[[modalities]]
name = "heat"
title = "Surface temperature"
band_names = ["kelvin"]
range = [250, 320]
files = "heat.tif"
model_input = false

[[regions]]
name = "peel-plateau"
footprint_of = "rgb"
split = {fractions = {train = 0.5, test = 0.5}, block_tiles = 2, seed = 7}

[[labels]]
files = ["experts/01.shp"]
role = "simulate"
class = "RTS"

[acquisition]
batch_size = 8

[detector]
iterations = 90

[policy]
min_new_tiles = 6

[demo]
rounds = 2
"""

NEWLINE = "\n"


def parse(tmp_path: Path, text: str):
    path = tmp_path / "campaign.toml"
    path.write_text(text)
    return parse_campaign_file(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(CampaignFileError) as caught:
        parse(tmp_path, text)
    return str(caught.value)


def test_how_pixels_are_read_is_left_to_the_file_or_said_for_all_or_one(tmp_path):
    said = 'alpha = "ignored"\n'
    table = '{path = "s2.tif", alpha = "validity", color_table = "ignored", offset = 2,'
    spec = parse(tmp_path, FULL.replace("scale = 1e-4\n", said).replace('{path = "s2.tif",', table))

    one, other = spec.modalities[0].rasters
    assert (one.alpha, one.color_table, one.scale, one.offset) == ("validity", "ignored", None, 2)
    assert (other.alpha, other.color_table, other.scale, other.offset) == ("ignored", None, None, None)
    assert "`alpha` is 'valid'; it can be" in refusal(tmp_path, FULL.replace("scale = 1e-4", 'alpha = "valid"'))


def test_full_file_is_understood(tmp_path):
    spec = parse(tmp_path, FULL)

    assert (spec.name, spec.campaign.title, spec.campaign.score_threshold) == ("peel", "Peel Plateau", 0.25)
    assert [landform.name for landform in spec.landforms] == ["RTS", "lake"]
    assert [landform.color for landform in spec.landforms] == ["#e6194b", "#0000ff"]
    assert spec.grid.name == "32608-2_5m-128px"
    rgb, ndvi, heat = spec.modalities
    assert spec.anchor is rgb
    one, other = rgb.rasters
    assert [one.path, other.path] == [str(tmp_path / "s2.tif"), str(tmp_path / "other.tif")]
    assert (one.bands, other.bands) == ((3, 2, 1), None)
    assert one.scale == other.scale == 1e-4
    assert (one.date, other.date) == (datetime.date(2021, 8, 21), None)
    assert (ndvi.files, ndvi.definition) == ((), {})
    assert heat.definition == {
        "title": "Surface temperature",
        "bands": ["kelvin"],
        "range_min": 250.0,
        "range_max": 320.0,
    }
    assert not heat.model_input
    assert spec.regions[0].split == SplitSpec(fractions=Fractions(train=0.5, test=0.5), block_tiles=2, seed=7)
    assert spec.regions[0].split.shares == {"train": 0.5, "test": 0.5}
    assert spec.labels[0].splits == ("train",)
    assert spec.acquisition.batch_size == 8
    assert spec.detector.iterations == 90
    assert spec.policy.min_new_tiles == 6
    assert spec.demo.rounds == 2


def test_folders_of_local_files_are_listed_for_the_data_roots(tmp_path):
    assert parse(tmp_path, FULL).local_folders == (tmp_path.resolve(), tmp_path.resolve() / "experts")


def test_real_data_folder_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("THAWLOOP_REAL_DATA", "/somewhere/else")
    spec = parse(tmp_path, FULL.replace('"other.tif"', '"${THAWLOOP_REAL_DATA}/imagery/a.tif"'))
    assert spec.anchor.files[1].path == "/somewhere/else/imagery/a.tif"


def test_remote_files_keep_their_uri(tmp_path):
    spec = parse(tmp_path, FULL.replace('"other.tif"', '"s3://bucket/a.tif"'))
    assert spec.anchor.files[1].path == "s3://bucket/a.tif"
    assert tmp_path.resolve() in spec.local_folders


def line_of(text: str, fragment: str) -> int:
    return text[: text.index(fragment)].count("\n") + 1


@pytest.mark.parametrize(
    ("find", "replace", "words"),
    [
        ("tile_size", "tile_sise", ["`tile_sise`", "`tile_size`"]),
        ("pixel_size", "pixle_size", ["`pixle_size`", "`pixel_size`"]),
        ("bands = [3, 2, 1]", "band = [3, 2, 1]", ["`band`", "`bands`"]),
        ("[grid]", "[gird]", ["`gird`", "`grid`"]),
        ("[policy]", "[polisy]", ["`polisy`", "`policy`"]),
        ("batch_size = 8", "batchsize = 8", ["`batchsize`", "`batch_size`"]),
        ("iterations = 90", "iteration = 90", ["`iteration`", "`iterations`"]),
        ("seed = 7", "sed = 7", ["`sed`", "`seed`"]),
        ("anchor = true", "ancor = true", ["`ancor`", "`anchor`"]),
        ('files = ["experts', 'file = ["experts', ["`file`", "`files`"]),
        ("[[regions]]", "[[region]]", ["`region`", "`regions`"]),
    ],
)
def test_typo_is_refused_with_line_and_nearest_key(tmp_path, find, replace, words):
    text = FULL.replace(find, replace, 1)
    message = refusal(tmp_path, text)
    assert f"campaign.toml, line {line_of(text, replace)}:" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("find", "replace", "words"),
    [
        ('name = "peel"', 'name = "Peel Plateau!"', "lower-case"),
        ("srid = 32608", 'srid = "32608"', "whole number"),
        ("srid = 32608", "srid = true", "whole number"),
        ("pixel_size = 2.5", "pixel_size = 0", "metres"),
        ("tile_size = 128", "tile_size = 12", "32 to 4096"),
        ("start = 2021-06-01", 'start = "2021-06-01"', "date"),
        ("start = 2021-06-01", "start = 2022-06-01", "after"),
        ("[3, 2, 1]", "[0, 2, 1]", "counts from 1"),
        ("range = [250, 320]", "range = [320, 250]", "smallest"),
        ('footprint_of = "rgb"', 'footprint_of = "rbg"', "can be rgb or heat"),
        ('footprint_of = "rgb"', "bbox = [1, 2, 3]", "bbox"),
        ("train = 0.5, test = 0.5", "train = 0.5, test = 0.6", "add up to 1"),
        ('role = "simulate"', 'role = "simulated"', "can be truth or simulate"),
        ('class = "RTS"', 'class = "rts"', "can be RTS or lake"),
        ("batch_size = 8", "batch_size = -1", "batch_size"),
        ("iterations = 90", 'anchor = "slope"', "`anchor` is 'slope', which is not an input"),
        ("min_new_tiles = 6", 'min_new_tiles = "6"', "whole number"),
        ("score_threshold = 0.25", "score_threshold = 25", "at least 0 and at most 1"),
        ('color = "#0000ff"', 'color = "blue"', "#e6194b"),
        ('classes = ["RTS", "lake"]', 'classes = ["RTS"]', "'lake'"),
        ("pixel_size = 2.5", "pixel_size = nan", "metres"),
        ("tile_size = 128", "tile_size = 128\noverlap = 128", "below `tile_size`"),
        ("anchor = true", "anchor = true\nshown = false", "cannot have `shown = false`"),
        ('"other.tif"', '{path = "", bands = 1}', "give the path of a file"),
        ('files = "heat.tif"', 'files = "${THAWLOOP_REAL_DATA}/heat.tif"', "THAWLOOP_REAL_DATA is not set"),
        ('files = "heat.tif"', 'files = "heat.tif"\ndate = 2021-08-21T10:00:00', "a date such as 2021-08-21"),
        ('footprint_of = "rgb"', "bbox = [10, 60, 5, 61]", "west < east"),
        ("block_tiles = 2", "block_tiles = 0", "`block_tiles` is 0; it must be a whole number, at least 1"),
        ("rounds = 2", "miss_small = 2", "`miss_small` is 2; it must be a number, at least 0 and at most 1"),
        ("[policy]", "[[policy]]", "`policy` is [{'min_new_tiles': 6}]; it must be a table"),
        ("[[labels]]", "[labels]", "it must be written as `[[labels]]`"),
        ('class = "RTS"', 'splits = ["train", "tset"]', "`splits` holds 'tset'; it can be train or val or test"),
    ],
)
def test_wrong_value_is_refused_with_its_line(tmp_path, monkeypatch, find, replace, words):
    monkeypatch.delenv("THAWLOOP_REAL_DATA", raising=False)
    text = FULL.replace(find, replace, 1)
    message = refusal(tmp_path, text)
    assert f"line {line_of(text, replace) + replace.count(NEWLINE)}:" in message
    assert words in message


def test_all_mistakes_are_named_in_the_order_of_their_lines(tmp_path):
    text = FULL
    for find, replace in (
        ("rounds = 2", "round = 2"),
        ("pixel_size", "pixle_size"),
        ("[3, 2, 1]", '["3", 2, 0]'),
        ("iterations = 90", "iterations = 0"),
        ('name = "ndvi"', 'title = "NDVI"'),
    ):
        text = text.replace(find, replace, 1)

    assert refusal(tmp_path, text).removeprefix(f"{tmp_path}/campaign.toml, ") == (
        "line 14: unknown key `pixle_size` in `[grid]`; did you mean `pixel_size`? "
        "Line 27: `bands` holds '3'; it must be a band's number, which counts from 1. "
        "Line 27: `bands` holds 0; it must be a band's number, which counts from 1. "
        "Line 31: `[[modalities]]` number 2 lacks the key `name`. "
        "Line 56: `iterations` is 0; it must be a whole number, at least 1. "
        "Line 62: unknown key `round` in `[demo]`; did you mean `rounds`?"
    )


def test_tables_that_do_not_fit_each_other_are_all_named(tmp_path):
    text = FULL.replace('footprint_of = "rgb"', 'footprint_of = "ndvi"').replace('class = "RTS"', 'class = "ice"')
    message = refusal(tmp_path, text.replace("anchor = true", ""))
    assert "line 22: exactly one modality" in message
    assert "Line 44: `footprint_of` is 'ndvi'; it can be rgb or heat." in message
    assert "Line 50: `class` is 'ice'; it can be RTS or lake." in message


def test_defaults_follow_from_what_is_given(tmp_path):
    text = FULL.replace('title = "Peel Plateau"\nclasses = ["RTS", "lake"]', "")
    text = text.replace('label = "2021"\n', "").replace('class = "RTS"\n', "").replace('"simulate"', '"truth"')
    spec = parse(tmp_path, text)
    assert (spec.campaign.title, spec.period.label, spec.regions[0].title) == ("peel", "2021", "peel-plateau")
    assert [landform.name for landform in spec.landforms] == ["lake"]
    assert (spec.labels[0].landform_class, spec.labels[0].splits) == ("lake", ("train", "val", "test"))


@pytest.mark.parametrize(
    ("find", "replace", "words"),
    [
        ("anchor = true", "anchor = false", "exactly one"),
        ('name = "ndvi"', 'name = "ndvi"\nanchor = true', "exactly one"),
        ('name = "ndvi"', 'name = "rgb"', "twice"),
        ('"other.tif"', '"$HOME/other.tif"', "THAWLOOP_REAL_DATA"),
        ('"other.tif"', "17", "paths in quotes"),
        ('footprint_of = "rgb"', "", "one of"),
        ('footprint_of = "rgb"', 'footprint_of = "rgb"\nfile = "a.geojson"', "one of"),
        ('class = "RTS"', 'class = "RTS"\nclass_field = "kind"', "either"),
        ("experts/01.shp", "s3://bucket/01.shp", "local file"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, find, replace, words):
    message = refusal(tmp_path, FULL.replace(find, replace, 1))
    assert "campaign.toml, line " in message
    assert words in message


@pytest.mark.parametrize("section", ["campaign", "grid", "period"])
def test_missing_section_is_named(tmp_path, section):
    blocks = FULL.split("\n\n")
    kept = [block for block in blocks if f"[{section}]\n" not in block]
    assert len(kept) == len(blocks) - 1
    assert f"lacks the key `{section}`" in refusal(tmp_path, "\n\n".join(kept))


def test_invalid_toml_names_the_line(tmp_path):
    assert "line 4" in refusal(tmp_path, FULL.replace('title = "Peel Plateau"', "title = Peel Plateau"))


def test_missing_file_and_wrong_encoding_are_sentences(tmp_path):
    with pytest.raises(CampaignFileError, match="cannot be read"):
        parse_campaign_file(tmp_path / "nowhere.toml")
    (tmp_path / "latin.toml").write_bytes("title = 'Östlich'".encode("latin-1"))
    with pytest.raises(CampaignFileError, match="UTF-8"):
        parse_campaign_file(tmp_path / "latin.toml")


@given(st.data())
def test_every_mutilated_key_is_refused_at_its_own_line(tmp_path_factory, data):
    """Whatever letter is lost from whatever key, the refusal names a line that holds the mutilated key."""
    lines = FULL.splitlines()
    candidates = [n for n, text in enumerate(lines) if "=" in text and not text.startswith((" ", "#"))]
    number = data.draw(st.sampled_from(candidates))
    key, rest = lines[number].split(" = ", 1)
    cut = data.draw(st.integers(0, len(key) - 1))
    broken = key[:cut] + key[cut + 1 :] + "_x"
    text = "\n".join([*lines[:number], f"{broken} = {rest}", *lines[number + 1 :]])
    folder = tmp_path_factory.mktemp("mutilated")
    message = refusal(folder, text)
    assert broken in message or f"`{key}`" in message


SCALARS = st.one_of(st.integers(-9, 9), st.booleans(), st.sampled_from(['"a]b#"', "1.5", "2021-08-21", "'x = {'"]))


@given(
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c-d"]), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_every_key_of_any_value_gets_a_line(value):
    """The line finder sees exactly the keys that tomllib sees, in any nesting."""
    text = f"# first\n[table]\nkey = {_toml(value)}\nlast = 1\n"
    parsed = tomllib.loads(text)
    lines = key_lines(text)
    assert set(lines) == set(_paths(parsed, ()))
    assert lines["table", "last"] == text.count("\n")


def _toml(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + "".join(f"\n  {_toml(item)}, # note [\n" for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return str(value)


def _paths(value, path):
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    for key, child in children:
        yield from _paths(child, (*path, key))
