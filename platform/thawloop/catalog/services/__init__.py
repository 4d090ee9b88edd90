"""Every change of state in the catalog."""

from thawloop.catalog.services.defining import AMENDABLE, amend
from thawloop.catalog.services.modalities import define_modality, ensure_builtin
from thawloop.catalog.services.places import define_grid, define_region
from thawloop.catalog.services.scenes import SceneDraft, prepare_scene, register_scene, store_scenes
from thawloop.catalog.services.splitting import split_region
from thawloop.catalog.services.tiles import create_tiles

__all__ = [
    "AMENDABLE",
    "SceneDraft",
    "amend",
    "create_tiles",
    "define_grid",
    "define_modality",
    "define_region",
    "ensure_builtin",
    "prepare_scene",
    "register_scene",
    "split_region",
    "store_scenes",
]
