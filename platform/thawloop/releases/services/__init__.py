"""Every change of state in the releases room. Each service validates, writes in one transaction and audits."""

from thawloop.releases.services.export import export
from thawloop.releases.services.freeze import freeze_release
from thawloop.releases.services.label_import import import_labels
from thawloop.releases.services.materialise import materialise, verify

__all__ = ["export", "freeze_release", "import_labels", "materialise", "verify"]
