"""Withdrawing a label import."""

from django.db import connection, transaction
from django.utils import timezone

from labeling.errors import AlreadyWithdrawn, BadWithdrawal
from labeling.models import LabelImport
from labeling.signals import labels_arrived
from thawloop.campaigns.models import Campaign
from thawloop.core.context import current_actor
from thawloop.core.services import audit

# Labels that this import said and no other import that stands says as well.
_RETIRE = """
    WITH said AS (
        SELECT label.id FROM labeling_label AS label
        WHERE label.campaign_id = %(campaign)s AND label.origin LIKE %(origin)s
        UNION
        SELECT label_id FROM labeling_labelimport_confirmed WHERE labelimport_id = %(pk)s
    ), standing AS (
        SELECT other.id::text FROM labeling_labelimport AS other
        WHERE other.campaign_id = %(campaign)s AND other.withdrawn IS NULL AND other.id <> %(pk)s
    ), retired AS (
        INSERT INTO labeling_labelrevision
            (label_id, number, state, landform_class_id, geometry, properties, label_import_id, author_id, author_name,
             reason, created)
        SELECT label.id, current.number + 1, 'retired', current.landform_class_id, current.geometry,
            current.properties, %(pk)s, %(author)s, %(author_name)s, %(reason)s, %(now)s
        FROM said
        JOIN labeling_label AS label ON label.id = said.id
        JOIN labeling_labelrevision AS current ON current.id = label.current_id AND current.state = 'present'
        WHERE NOT EXISTS (SELECT FROM standing WHERE standing.id = split_part(label.origin, ':', 2)
                AND label.origin LIKE 'import:%%')
            AND NOT EXISTS (
                SELECT FROM labeling_labelimport_confirmed AS confirmed
                JOIN standing ON standing.id = confirmed.labelimport_id::text
                WHERE confirmed.label_id = label.id
            )
        RETURNING id, label_id
    )
    UPDATE labeling_label AS label SET current_id = retired.id FROM retired WHERE retired.label_id = label.id
"""


def withdraw_import(found: LabelImport, *, reason: str) -> LabelImport:
    """Withdraw an import as a whole: its labels are retired, its coverage no longer counts. Nothing is deleted.

    Labels that another import says as well stay. The same file can be imported again.

    Args:
        found: The import.
        reason: Why, in a person's words; every label's last revision says it.

    Raises:
        BadWithdrawal: There is no reason.
        AlreadyWithdrawn: It was withdrawn before.
    """
    if not reason.strip():
        raise BadWithdrawal(f"Say why import {found.pk} is withdrawn: its labels keep the reason.")
    actor = current_actor()
    with transaction.atomic():
        # After an import under way, which may say the same.
        Campaign.objects.select_for_update(of=("self",)).get(pk=found.campaign_id)
        row = LabelImport.objects.select_for_update(of=("self",)).select_related("campaign").get(pk=found.pk)
        if row.withdrawn is not None:
            raise AlreadyWithdrawn(f"Import {row.pk} ({row.file_name}) was withdrawn on {row.withdrawn:%Y-%m-%d}.")
        row.withdrawn = timezone.now()
        row.withdrawn_by = actor.user
        row.withdrawn_reason = reason.strip()[:300]
        retired = _retire(row)
        row.counts = row.counts | {"retired": retired}
        row.save(update_fields=["withdrawn", "withdrawn_by", "withdrawn_reason", "counts"])
        audit("labels.withdraw", row, after={"file": row.file_name, "retired": retired}, reason=row.withdrawn_reason)
        labels_arrived.send(LabelImport, campaign=row.campaign)
    return row


def _retire(row: LabelImport) -> int:
    actor = current_actor()
    arguments = {
        "campaign": row.campaign_id,
        "pk": row.pk,
        "origin": f"import:{row.pk}:%",
        "author": actor.user.pk if actor.user else None,
        "author_name": actor.name[:254],
        "reason": f"import {row.pk} withdrawn: {row.withdrawn_reason}"[:300],
        "now": row.withdrawn,
    }
    with connection.cursor() as cursor:
        cursor.execute(_RETIRE, arguments)
        return int(cursor.rowcount)
