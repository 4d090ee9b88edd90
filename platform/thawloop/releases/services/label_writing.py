"""Write many labels at once: staged in a temporary table, compared and inserted by the database itself."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import shapely
from django.db import connection
from shapely.geometry import MultiPolygon

from labeling.models import LabelImport
from thawloop.campaigns.models import LandformClass
from thawloop.core.context import current_actor

# Autovacuum comes minutes after the rows; until then plans rest on guesses, which has made queries take minutes.

_INCOMING = """
    DROP TABLE IF EXISTS incoming;
    CREATE TEMP TABLE incoming (
        feature text NOT NULL,
        landform_class_id bigint NOT NULL,
        geometry geometry(MultiPolygon, 4326) NOT NULL,
        properties jsonb NOT NULL,
        label_id uuid NOT NULL DEFAULT gen_random_uuid(),
        revision_id bigint NOT NULL DEFAULT nextval(pg_get_serial_sequence('labeling_labelrevision', 'id'))
    ) ON COMMIT DROP
"""
# The campaign's imported labels with the very same geometry and class. LATERAL and OFFSET 0 make it one look into each
# index for each incoming label, whatever the planner believes about the sizes of tables.
_KNOWN = """
    DROP TABLE IF EXISTS known;
    CREATE TEMP TABLE known ON COMMIT DROP AS
    SELECT DISTINCT ON (incoming.label_id) incoming.label_id AS incoming_id, label.id AS label_id
    FROM incoming
    CROSS JOIN LATERAL (
        SELECT revision.id, revision.label_id, revision.geometry, revision.landform_class_id
        FROM labeling_labelrevision AS revision
        WHERE revision.geometry ~= incoming.geometry AND revision.state = 'present'
            AND revision.label_import_id IS NOT NULL
        OFFSET 0
    ) AS found
    CROSS JOIN LATERAL (
        SELECT label.id FROM labeling_label AS label
        WHERE label.id = found.label_id AND label.current_id = found.id AND label.campaign_id = %s
        OFFSET 0
    ) AS label
    WHERE found.landform_class_id = incoming.landform_class_id
        AND ST_Normalize(found.geometry) = ST_Normalize(incoming.geometry)
    ORDER BY incoming.label_id, label.id
"""
_DROP_KNOWN = "DELETE FROM incoming USING known WHERE known.incoming_id = incoming.label_id"
_LABELS = """
    INSERT INTO labeling_label (id, campaign_id, origin, current_id, created)
    SELECT label_id, %(campaign)s, left('import:' || %(pk)s || ':' || feature, 100), revision_id, now() FROM incoming
"""
_REVISIONS = """
    INSERT INTO labeling_labelrevision
        (id, label_id, number, state, landform_class_id, geometry, properties, label_import_id, author_id, author_name,
         reason, created)
    SELECT revision_id, label_id, 1, 'present', landform_class_id, geometry, properties, %(pk)s, %(author)s,
        %(author_name)s, %(reason)s, now()
    FROM incoming
"""
_CONFIRMED = """
    INSERT INTO labeling_labelimport_confirmed (labelimport_id, label_id)
    SELECT DISTINCT %(pk)s, label_id FROM known
"""


@dataclass(frozen=True)
class NewLabel:
    """A label about to be written."""

    feature: str
    landform_class: LandformClass
    geometry: MultiPolygon
    properties: dict[str, Any]


def stage(campaign: int, labels: Sequence[NewLabel]) -> int:
    """Stage labels in a temporary table, in the caller's transaction.

    Returns:
        How many of them are new: no import that stands has a label of the same geometry and class.
    """
    shapes = shapely.set_srid([label.geometry for label in labels], 4326)
    encoded = shapely.to_wkb(shapes, hex=True, include_srid=True) if labels else []
    with connection.cursor() as cursor:
        cursor.execute(_INCOMING)
        with cursor.copy("COPY incoming (feature, landform_class_id, geometry, properties) FROM STDIN") as copy:
            for label, geometry in zip(labels, encoded, strict=True):
                copy.write_row((label.feature, label.landform_class.pk, geometry, json.dumps(label.properties)))
        cursor.execute("ANALYZE incoming")
        cursor.execute(_KNOWN, [campaign])
        cursor.execute(_DROP_KNOWN)
        return len(labels) - int(cursor.rowcount)


def write_staged(found: LabelImport) -> None:
    """Make labels of what is staged and not known, in the caller's transaction; what is known the import confirms."""
    actor = current_actor()
    arguments = {
        "campaign": found.campaign_id,
        "pk": found.pk,
        "author": actor.user.pk if actor.user else None,
        "author_name": actor.name[:254],
        "reason": f"imported from {found.file_name}"[:300],
    }
    with connection.cursor() as cursor:
        # Labels name their revisions before these are there: the constraint is checked at the end of the transaction.
        for statement in (_LABELS, _REVISIONS, _CONFIRMED):
            cursor.execute(statement, arguments)
