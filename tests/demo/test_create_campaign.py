"""Setting a campaign up from its file: complete or not at all, and as often as one likes."""

import json
from io import StringIO
from pathlib import Path

import pytest
import rasterio
from django.core.management import CommandError, call_command

from demo.generated import CAMPAIGN_FILE
from demo.scenes import SceneSize, generate
from labeling.models import Label
from labeling.selectors import labelled_tiles
from thawloop.campaigns.models import Campaign, CampaignRegion, LandformClass
from thawloop.catalog.models import Modality, Region, Scene, Tile, TileGrid
from thawloop.core.errors import Refused
from thawloop.core.models import AuditEntry
from thawloop.setup.creating import CampaignError, CampaignExists
from thawloop.setup.reading import parse_campaign_file
from thawloop.setup.services import set_up_campaign
from thawloop.training.models import RetrainPolicy

pytestmark = pytest.mark.django_db
EVERYTHING = (Campaign, CampaignRegion, Modality, Region, Scene, Tile, TileGrid, LandformClass, Label, RetrainPolicy)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    generate(folder, SceneSize(columns=6, rows=5), seed=1)
    return folder


@pytest.fixture
def file(scenes, settings) -> Path:
    settings.THAWLOOP_DATA_ROOTS = [str(scenes)]
    path = scenes / "demo.toml"
    path.write_text(CAMPAIGN_FILE.read_text())
    return path


def change(file: Path, *replacements: tuple[str, str]) -> Path:
    text = file.read_text()
    for find, replace in replacements:
        assert find in text
        text = text.replace(find, replace)
    changed = file.with_name("changed.toml")
    changed.write_text(text)
    return changed


def counts() -> dict[str, int]:
    return {model.__name__: model.objects.count() for model in EVERYTHING}


def test_everything_in_the_file_is_there(file):
    made = set_up_campaign(parse_campaign_file(file))

    campaign = made.campaign
    assert made.created
    assert sum(made.tiles.values()) == 30
    assert set(made.tiles) == {"train", "val", "test"}
    assert made.scenes == 3
    shown = campaign.campaign_modalities.filter(is_shown=True).values_list("modality__name", flat=True)
    learned = campaign.campaign_modalities.filter(is_model_input=True).values_list("modality__name", flat=True)
    assert list(shown) == ["rgb", "ndvi", "relative_elevation", "hillshade"]
    assert list(learned) == ["rgb", "ndvi", "relative_elevation"]
    assert campaign.campaign_modalities.get(is_anchor=True).modality.name == "rgb"
    assert campaign.retrain_policy.min_new_tiles == 16
    assert campaign.detector["size"] == "nano"
    assert AuditEntry.objects.filter(action="labeling.create_campaign").count() == 1


def test_what_looks_wrong_in_a_raster_is_told(file, scenes):
    dem = next(scenes.glob("*dem*.tif"))
    with rasterio.open(dem, "r+") as raster:
        raster.scales = (0.5,)
    out = StringIO()

    call_command(
        "create_campaign", str(change(file, ('name = "dem"', 'name = "dem"\nscale = 1'))), json=True, stdout=out
    )

    (warning,) = json.loads(out.getvalue())["warnings"]
    assert dem.name in warning
    assert "declares scale and offset 0.5 and 0" in warning


def test_truth_counts_in_test_and_val_only(file):
    campaign = set_up_campaign(parse_campaign_file(file)).campaign
    splits = set(labelled_tiles(campaign).values_list("split", flat=True))
    assert splits == {"val", "test"}
    assert 0 < campaign.labels.count() < len(json.loads((file.parent / "truth.geojson").read_text())["features"])


def test_the_same_file_again_changes_nothing(file):
    spec = parse_campaign_file(file)
    set_up_campaign(spec)
    before, entries = counts(), AuditEntry.objects.count()
    again = set_up_campaign(spec)
    assert not again.created
    assert counts() == before
    assert AuditEntry.objects.count() == entries


@pytest.mark.parametrize(
    ("replacements", "words"),
    [
        ([('files = "dem.tif"', 'files = "nowhere.tif"')], "nowhere.tif"),
        ([('files = "truth.geojson"', 'files = "nowhere.geojson"')], "nowhere.geojson"),
        ([('footprint_of = "rgb"', "bbox = [10.0, 60.0, 10.02, 60.01]")], "demo-moraine"),
        ([("bands = 4", "bands = 9")], "9"),
        ([("srid = 3413", "srid = 4326")], "metre"),
        ([('name = "hillshade"', 'name = "magnetism"')], "magnetism"),
        ([('files = "dem.tif"\n', "")], "`dem`"),
    ],
)
def test_a_mistake_leaves_nothing_behind(file, replacements, words):
    before = counts()
    spec = parse_campaign_file(change(file, *replacements))
    with pytest.raises(Refused, match=words):
        set_up_campaign(spec)
    assert counts() == before
    assert not AuditEntry.objects.exists()


def test_settings_may_change_later(file):
    set_up_campaign(parse_campaign_file(file))
    changed = change(
        file, ("[detector]\n", "[detector]\nbatch_size = 3\n"), ("min_new_tiles = 16", "min_new_tiles = 5")
    )
    campaign = set_up_campaign(parse_campaign_file(changed)).campaign
    assert campaign.detector["batch_size"] == 3
    assert RetrainPolicy.objects.get(campaign=campaign).min_new_tiles == 5


@pytest.mark.parametrize(
    ("replacement", "words"),
    [
        (("tile_size = 128", 'tile_size = 64\nname = "other"'), "grid"),
        (('classes = ["RTS"]', 'classes = ["lake"]'), "classes"),
        (('name = "hillshade"', 'name = "slope"'), "modalities"),
    ],
)
def test_what_labels_rest_on_cannot_change(file, replacement, words):
    set_up_campaign(parse_campaign_file(file))
    text = (
        change(file, replacement)
        .read_text()
        .replace('name = "demo-3m"\n', "" if "tile_size" in replacement[0] else 'name = "demo-3m"\n')
    )
    changed = file.with_name("changed.toml")
    changed.write_text(text)
    with pytest.raises(CampaignExists, match=words):
        set_up_campaign(parse_campaign_file(changed))


def test_a_test_region_never_becomes_a_train_region(file):
    whole = (
        "split = {fractions = {train = 0.66, val = 0.06, test = 0.28}, block_tiles = 2, seed = 0}",
        'split = "test"',
    )
    set_up_campaign(parse_campaign_file(change(file, whole)))
    with pytest.raises(CampaignExists, match="test part"):
        set_up_campaign(parse_campaign_file(change(file, (whole[0], 'split = "train"'))))


def test_files_outside_the_data_roots_are_refused_with_the_setting_to_change(file, settings, tmp_path):
    settings.THAWLOOP_DATA_ROOTS = [str(tmp_path)]
    with pytest.raises(Refused, match="THAWLOOP_DATA_ROOTS"):
        set_up_campaign(parse_campaign_file(file))


def test_a_region_may_come_from_a_vector_file_in_any_crs(file, scenes):
    import geopandas

    frame = geopandas.read_file(scenes / "truth.geojson").to_crs(3413)
    frame.iloc[:3].to_file(scenes / "area.gpkg")
    area = change(file, ('footprint_of = "rgb"', 'file = "area.gpkg"'), ("block_tiles = 2", "block_tiles = 1"))
    text = area.read_text()
    line = next(line for line in text.splitlines() if line.startswith("split = {"))
    area.write_text(text.replace(line, ""))
    spec = parse_campaign_file(area)
    with pytest.raises(Refused):  # three slumps hold the centre of no tile, or too few to import truth for
        set_up_campaign(spec)
    frame.dissolve().convex_hull.to_frame("geometry").to_file(scenes / "area.gpkg")
    text = area.read_text().replace('splits = ["val", "test"]', "")
    area.write_text(text)
    assert set_up_campaign(parse_campaign_file(area)).tiles["train"] > 10


def test_a_derived_modality_with_files_is_refused(file):
    wrong = change(file, ('name = "ndvi"', 'name = "ndvi"\nfiles = "optical.tif"\nbands = 1'))
    with pytest.raises(CampaignError, match="derived"):
        set_up_campaign(parse_campaign_file(wrong))


def test_the_command_reports_what_is_there(file):
    out = StringIO()
    call_command("create_campaign", str(file), "--json", stdout=out)
    result = json.loads(out.getvalue())
    assert result["created"]
    assert result["campaign"] == "demo"
    with pytest.raises(CommandError, match=r"line \d+: unknown key") as caught:
        call_command("create_campaign", str(change(file, ("tile_size", "tile_sise"))))
    assert caught.value.returncode == 1


@pytest.mark.parametrize("name", ["peel", "crowns", "glacier"])
def test_examples_fit_the_real_data(name, real_data, settings):
    spec = parse_campaign_file(Path(__file__).parents[2] / "examples" / f"{name}.toml")
    settings.THAWLOOP_DATA_ROOTS = [str(folder) for folder in spec.local_folders]
    made = set_up_campaign(spec)
    rounds = spec.acquisition.initial_batch_size + (spec.demo.rounds - 1) * spec.acquisition.batch_size
    assert made.tiles["train"] >= rounds
    assert made.tiles["test"] >= 15
    assert sum(made.truth.values()) >= 5
