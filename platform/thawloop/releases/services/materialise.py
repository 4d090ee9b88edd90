"""Write a release's dataset directory, and check it later."""

from pathlib import Path

from django.db import transaction

from thawloop.catalog.models import Modality
from thawloop.core.services import audit
from thawloop.core.storage import artifact, publish_directory
from thawloop.releases.dataset.manifest import MANIFEST, differences, digest
from thawloop.releases.dataset.writing import DatasetWriter, Progress
from thawloop.releases.errors import ReleaseRefused
from thawloop.releases.models import Release


def materialise(release: Release, *, progress: Progress | None = None) -> Path:
    """Write the dataset directory of a release; what is there already is only checked for.

    The directory appears at once and complete. Killed half-way, or asked again after somebody removed the files, the
    same release gives the same files.

    Args:
        release: A frozen release.
        progress: Called with a fraction 0-1 and a message; may raise to stop, and nothing is left behind.

    Returns:
        The directory (layout: docs/architecture.md, dataset directory).

    Raises:
        ReleaseRefused: No imagery, or imagery that changed since the release was first written.
        Refused: The disk is full or a scene cannot be read.
    """
    name = release.path or f"releases/{release.campaign.name}/{release.version}"
    folder = artifact(name)
    if (folder / MANIFEST).exists():
        checksum = str(digest(folder / MANIFEST)["sha256"])
        _check_same(release, checksum)
    else:
        names = [item["name"] for item in release.definition["modalities"]]
        known = Modality.objects.select_related("source").in_bulk(names, field_name="name")
        anchor = next(item["name"] for item in release.definition["modalities"] if item["anchor"])
        # Asked for only where no complete directory is: anything else there is an incomplete leftover.
        with publish_directory(name, replace=True) as temporary:
            writer = DatasetWriter(release, temporary, [known[item] for item in names], anchor)
            checksum = writer.write(progress or _no_progress)
            _check_same(release, checksum)
    if release.state != Release.State.READY:
        _make_ready(release, name, checksum)
    if progress:
        progress(1.0, "done")
    return folder


def verify(release: Release) -> list[str]:
    """Compare every file of a release with its manifest.

    Returns:
        A sentence for each file that is missing, changed or unknown; none for an intact release.
    """
    if release.state != Release.State.READY:
        return [f"{release} has no files yet: write them with `release --campaign {release.campaign.name}`."]
    folder = artifact(release.path)
    if not (folder / MANIFEST).is_file():
        return [f"{release}'s files are gone: write them again with `release --campaign {release.campaign.name}`."]
    found = differences(folder)
    if digest(folder / MANIFEST)["sha256"] != release.manifest_checksum:
        found.insert(0, "manifest.json was changed after the release was made.")
    return found


def _check_same(release: Release, checksum: str) -> None:
    if release.manifest_checksum and checksum != release.manifest_checksum:
        raise ReleaseRefused(
            f"{release} would no longer have the same files: a scene, a modality or what writes them changed since it "
            "was made. Freeze a new release instead."
        )


def _make_ready(release: Release, name: str, checksum: str) -> None:
    with transaction.atomic():
        changed = Release.objects.filter(pk=release.pk, state=Release.State.FROZEN).update(
            state=Release.State.READY, path=name, manifest_checksum=checksum
        )
        release.refresh_from_db()
        if changed:
            audit("releases.materialise", release, after={"path": name, "manifest_checksum": checksum})


def _no_progress(fraction: float, message: str) -> None:
    """Report no progress."""
