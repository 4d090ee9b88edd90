"""Reviewers' decisions on labels: retire one, restore it, or change its class."""

from django.db import transaction

from labeling.errors import BadReview
from labeling.models import Label, LabelRevision
from labeling.services.labels import REVIEWED, revise
from labeling.signals import labels_arrived
from thawloop.campaigns.models import LandformClass
from thawloop.core.context import current_actor
from thawloop.core.services import audit


def review_label(
    label: Label, *, reason: str, state: str | None = None, landform_class: LandformClass | None = None
) -> LabelRevision:
    """Add a revision with what a reviewer decided; its outline stays as it was drawn.

    It stands until the tile is submitted again; reading an earlier submission again does not change it.

    Args:
        label: The label.
        reason: Why, in a person's words.
        state: `present` or `retired`; as it is if not given.
        landform_class: One of the campaign's classes; as it is if not given.

    Raises:
        BadReview: nothing would change, there is no reason, or the class is not the campaign's.
    """
    if not reason.strip():
        raise BadReview("Say why: the reason is kept with the label.")
    with transaction.atomic():
        label = Label.objects.select_for_update().get(pk=label.pk)
        current = label.current
        if current is None:
            raise BadReview(f"{label} has no revision yet.")
        new = LabelRevision(
            label=label,
            state=state or current.state,
            landform_class=landform_class or current.landform_class,
            geometry=current.geometry,
            properties=current.properties,
            annotation=current.annotation,
            label_import=current.label_import,
            author=current_actor().user,
            author_name=current_actor().name,
            reason=f"{REVIEWED}{reason.strip()}"[:300],
        )
        before = {"state": current.state, "class": current.landform_class.name}
        after = {"state": new.state, "class": new.landform_class.name}
        if before == after:
            raise BadReview(f"{label} is {current.state} and of class {current.landform_class} already.")
        if not label.campaign.classes.filter(pk=new.landform_class_id).exists():
            raise BadReview(f"Class {new.landform_class.name} is not one of campaign {label.campaign.name}'s classes.")
        revise(label, new)
        audit("labeling.review_label", label, before=before, after=after, reason=reason)
        labels_arrived.send(LabelRevision, campaign=label.campaign)
    return new
