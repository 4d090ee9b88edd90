"""Files: artifacts that we write (releases, checkpoints) and rasters that we are given."""

from thawloop.core.storage.artifacts import artifact, publish_directory, sha256, sweep_leftovers
from thawloop.core.storage.disk import StorageFull, explain_full_disk
from thawloop.core.storage.uris import UriRefused, checked_uri

__all__ = [
    "StorageFull",
    "UriRefused",
    "artifact",
    "checked_uri",
    "explain_full_disk",
    "publish_directory",
    "sha256",
    "sweep_leftovers",
]
