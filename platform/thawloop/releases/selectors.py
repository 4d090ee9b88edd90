"""Questions about releases."""

from dataclasses import dataclass
from typing import Any

from thawloop.campaigns.models import Campaign
from thawloop.releases.errors import ReleaseRefused
from thawloop.releases.membership import frozen_members
from thawloop.releases.models import Release

NAMED = 1_000


@dataclass(frozen=True)
class Change:
    """What came, went and changed among things of one kind, by id, sorted."""

    added: list[str]
    removed: list[str]
    changed: list[str]

    def to_json(self) -> dict[str, Any]:
        """Counts, and the first thousand ids of each."""
        return {
            kind: {"count": len(ids), "ids": ids[:NAMED]}
            for kind, ids in (("added", self.added), ("removed", self.removed), ("changed", self.changed))
        }


@dataclass(frozen=True)
class ReleaseDiff:
    """How release `after` differs from `before`: labels by UUID, tiles by key (changed: split or annotation)."""

    before: str
    after: str
    labels: Change
    tiles: Change

    def to_json(self) -> dict[str, Any]:
        """For the API and the command line."""
        return {
            "before": self.before,
            "after": self.after,
            "labels": self.labels.to_json(),
            "tiles": self.tiles.to_json(),
        }


def diff(before: Release, after: Release) -> ReleaseDiff:
    """Compare two releases of one campaign.

    Raises:
        ReleaseRefused: They belong to different campaigns.
    """
    if before.campaign_id != after.campaign_id:
        raise ReleaseRefused(f"{before} and {after} belong to different campaigns: nothing to compare.")
    old, new = frozen_members(before), frozen_members(after)
    keys = dict(before.release_tiles.values_list("tile_id", "tile__key"))
    keys |= dict(after.release_tiles.values_list("tile_id", "tile__key"))
    return ReleaseDiff(
        before.version,
        after.version,
        labels=_change(old.labels, new.labels),
        tiles=_change(
            {keys[tile]: how for tile, how in old.tiles.items()}, {keys[tile]: how for tile, how in new.tiles.items()}
        ),
    )


def _change(old: dict[str, Any], new: dict[str, Any]) -> Change:
    return Change(
        added=sorted(new.keys() - old.keys()),
        removed=sorted(old.keys() - new.keys()),
        changed=sorted(key for key in old.keys() & new.keys() if old[key] != new[key]),
    )


def find_release(name: str, *, campaign: Campaign | None = None) -> Release:
    """The release that a person names: `campaign/1.0.0`, or within a campaign `1.0.0` or `latest`.

    Raises:
        ReleaseRefused: There is none of that name, or the campaign is missing.
    """
    owner, _, version = name.rpartition("/")
    found = Release.objects.select_related("campaign")
    if owner:
        found = found.filter(campaign__name=owner)
    elif campaign is not None:
        found = found.filter(campaign=campaign)
    else:
        raise ReleaseRefused(f"`{name}` could be of any campaign: write CAMPAIGN/{name}, or add --campaign.")
    release = found.first() if version == "latest" else found.filter(version=version).first()
    if release is None:
        known = ", ".join(f"{row.campaign.name}/{row.version}" for row in found[:8])
        raise ReleaseRefused(f"There is no release `{name}`: {f'choose one of {known}' if known else 'freeze one'}.")
    return release
