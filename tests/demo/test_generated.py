"""The default demo's folder: made once, made again when it would be different, and fit to be set up."""

from demo.generated import generated_campaign
from demo.scenes import SceneSize
from thawloop.setup.reading import parse_campaign_file

SMALL = SceneSize(columns=2, rows=2)


def test_scenes_are_generated_once(tmp_path):
    file = generated_campaign(tmp_path, size=SMALL, seed=1)
    made = (tmp_path / "optical.tif").stat().st_mtime_ns
    assert generated_campaign(tmp_path, size=SMALL, seed=1) == file
    assert (tmp_path / "optical.tif").stat().st_mtime_ns == made
    generated_campaign(tmp_path, size=SMALL, seed=2)
    assert (tmp_path / "optical.tif").stat().st_mtime_ns > made


def test_interrupted_generation_is_done_again(tmp_path):
    generated_campaign(tmp_path, size=SMALL, seed=1)
    (tmp_path / "dem.tif").unlink()
    generated_campaign(tmp_path, size=SMALL, seed=1)
    assert (tmp_path / "dem.tif").exists()


def test_campaign_file_holds_labels_back_for_annotators(tmp_path):
    spec = parse_campaign_file(generated_campaign(tmp_path, size=SMALL, seed=1))
    assert {labels.role for labels in spec.labels} == {"truth", "simulate"}
    assert spec.local_folders == (tmp_path.resolve(),)
    rounds = spec.acquisition.initial_batch_size + (spec.demo.rounds - 1) * spec.acquisition.batch_size
    assert rounds <= 0.6 * 0.66 * SceneSize().columns * SceneSize().rows  # there must be something to choose from
    assert spec.policy.min_new_tiles == spec.acquisition.batch_size == spec.acquisition.initial_batch_size
