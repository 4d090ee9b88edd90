"""Freeze what is labelled now into a release."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from thawloop.campaigns.models import Campaign, Split
from thawloop.core.context import current_actor
from thawloop.core.planner import renew_statistics
from thawloop.core.services import audit
from thawloop.releases.definition import define
from thawloop.releases.errors import ReleaseConflict, ReleaseRefused
from thawloop.releases.membership import current_members, frozen_members
from thawloop.releases.models import Release, ReleaseLabel, ReleaseTile
from thawloop.releases.versions import Members, next_version

BATCH = 5_000


def freeze_release(campaign: Campaign, *, notes: str = "", allow_unchanged: bool = True) -> Release:
    """Fix the tiles and labels of a new release, all seen at one moment.

    Tiles labelled by annotators or covered by an import take the split of their region. What two splits would share is
    left to the higher one (`releases.separation`); what is left out is named with the reason. If nothing changed since
    the last release, that one is returned.

    Args:
        campaign: What to freeze.
        notes: For people.
        allow_unchanged: False raises instead where nothing changed.

    Raises:
        ReleaseRefused: No tile of the train or test regions is labelled.
        ReleaseConflict: Nothing changed (see `allow_unchanged`), or another release is being frozen.
    """
    try:
        with _snapshot():
            began = timezone.now()
            previous = Release.objects.filter(campaign=campaign).first()
            definition = define(campaign)
            members, on_tiles, left_out = current_members(campaign, definition)
            _refuse_missing_split(campaign, members)
            before = frozen_members(previous) if previous else None
            if previous is not None and before == members:
                if allow_unchanged:
                    return previous
                raise ReleaseConflict(f"Nothing was labelled or edited since release {previous}: use that one.")
            version = next_version(previous.version if previous else None, before, members)
            definition["version"] = version
            definition["provenance"] |= {
                "sources": sorted(members.sources),
                "imports": _imports(campaign, members),
                "left_out": left_out.to_json(),
                "parent": previous.version if previous else None,
            }
            release = Release.objects.create(
                campaign=campaign,
                version=version,
                parent=previous,
                definition=definition,
                counts=_counts(members, on_tiles) | {"left_out": left_out.counts()},
                notes=notes,
                created_by=current_actor().user,
            )
            # What is labelled while the members are looked for is not among them: it must count as newer.
            release.created = began
            release.save(update_fields=["created"])
            _write_members(release, members)
            audit("releases.freeze", release, after={"version": version, **release.counts}, reason=notes)
            return release
    except (IntegrityError, OperationalError) as error:
        if not _lost_a_race(error):
            raise
        raise ReleaseConflict(f"Another release of {campaign.name} is being frozen right now: try again.") from error


@contextmanager
def _snapshot() -> Iterator[None]:
    """An outermost transaction that sees the database as it is at its first query."""
    with transaction.atomic(durable=True):
        # Inside a test case's own transaction the level can no longer be set; there nobody else writes.
        if len(connection.savepoint_ids) == 0 and len(connection.atomic_blocks) == 1:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield


def _lost_a_race(error: Exception) -> bool:
    state = getattr(error.__cause__, "sqlstate", "")
    return state == "40001" or "release_version_once" in str(error)


def _refuse_missing_split(campaign: Campaign, members: Members) -> None:
    present = {split for split, _ in members.tiles.values()}
    for split in (Split.TRAIN, Split.TEST):
        if split not in present:
            raise ReleaseRefused(
                f"Campaign {campaign.name} has no labelled tile in its {split} regions: annotate some (`acquire`, then "
                f"`sync`), or import labels that cover them (`import_labels FILE --campaign {campaign.name} "
                f"--split {split} --coverage regions`)."
            )


def _imports(campaign: Campaign, members: Members) -> list[dict[str, str]]:
    """The label files among a release's sources, by name."""
    return [
        {"file": row.file_name, "checksum": row.checksum, "imported": row.created.date().isoformat()}
        for row in campaign.imports.filter(withdrawn__isnull=True).order_by("pk")
        if f"import:{row.checksum}" in members.sources
    ]


def _counts(members: Members, on_tiles: dict[int, set[int]]) -> dict[str, Any]:
    tiles = dict.fromkeys(Split.values, 0)
    labels: dict[str, set[int]] = {split: set() for split in Split.values}
    for tile, (split, _) in members.tiles.items():
        tiles[split] += 1
        labels[split] |= on_tiles.get(tile, set())
    return {"tiles": tiles, "labels": {split: len(found) for split, found in labels.items()}}


def _write_members(release: Release, members: Members) -> None:
    ReleaseTile.objects.bulk_create(
        (
            ReleaseTile(release=release, tile_id=tile, split=split, annotation_id=annotation)
            for tile, (split, annotation) in members.tiles.items()
        ),
        batch_size=BATCH,
    )
    ReleaseLabel.objects.bulk_create(
        (ReleaseLabel(release=release, revision_id=revision) for revision in members.labels.values()),
        batch_size=BATCH,
    )
    renew_statistics(len(members.tiles) + len(members.labels), ReleaseTile, ReleaseLabel)
