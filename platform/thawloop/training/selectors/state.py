"""What is asked of a campaign before it is retrained, each question once."""

from dataclasses import dataclass
from functools import cached_property

from django.db.models import Q

from labeling.selectors import LabelStock, label_stock
from thawloop.campaigns.models import Campaign
from thawloop.campaigns.settings import DetectorSettings
from thawloop.core.bulk import without_bulk
from thawloop.registry.models import ModelVersion
from thawloop.registry.selectors import champion
from thawloop.training.architecture import Architecture
from thawloop.training.models import Retraining, RetrainPolicy

STOPPED = (Retraining.State.FAILED, Retraining.State.CANCELLED)


@dataclass(frozen=True)
class CampaignState:
    """How a campaign stands, for one request, one pass of the policies, or one start.

    Policy, outlook, plan and pages are given it, and ask it instead of the database. What nobody asks is not read, and
    what was read stays as it was, so that all answers given from one state agree.

    Attributes:
        campaign: Its row, as the caller read it.
        counted: Its stock, for a caller that has it already.
    """

    campaign: Campaign
    counted: LabelStock | None = None

    @cached_property
    def settings(self) -> DetectorSettings:
        """The campaign's model settings.

        Raises:
            SettingsError: they make no sense.
        """
        return DetectorSettings.from_json(self.campaign.detector)

    @cached_property
    def architecture(self) -> Architecture:
        """The model that its settings ask for.

        Raises:
            ModelRefused: it gives the model no modality.
            SettingsError: its model settings make no sense.
        """
        return Architecture.wanted(self.campaign)

    @cached_property
    def policy(self) -> RetrainPolicy | None:
        """When it retrains by itself."""
        return RetrainPolicy.objects.filter(campaign=self.campaign).first()

    @cached_property
    def champion(self) -> ModelVersion | None:
        """The model version that predicts its tiles."""
        return champion(self.campaign)

    @property
    def last(self) -> Retraining | None:
        """Its newest retraining."""
        return next(iter(self._retrainings), None)

    @property
    def active(self) -> Retraining | None:
        """The retraining that has not ended yet."""
        return next((row for row in self._retrainings if row.state not in Retraining.FINISHED), None)

    @property
    def trained(self) -> Retraining | None:
        """The last retraining that used up what was new: one that was stopped before its model was judged did not."""
        done = (row for row in self._retrainings if row.release_id is not None)
        return next((row for row in done if row.state not in STOPPED or row.promoted is not None), None)

    @cached_property
    def stock(self) -> LabelStock:
        """Labelled tiles and labels, and what of them is new since the release that was trained on last."""
        if self.counted is not None:
            return self.counted
        release = self.trained.release if self.trained else None
        return label_stock(self.campaign, release.created if release else None)

    @cached_property
    def _retrainings(self) -> list[Retraining]:
        """The newest retraining, the active one, the one that used labels up: in one query, newest first."""
        newest = self.campaign.retrainings.order_by("-number").values("pk")
        stopped = Q(state__in=STOPPED, promoted__isnull=True)
        wanted = (
            newest[:1],
            newest.exclude(state__in=Retraining.FINISHED)[:1],
            newest.filter(release__isnull=False).exclude(stopped)[:1],
        )
        rows = Retraining.objects.filter(Q(pk__in=wanted[0]) | Q(pk__in=wanted[1]) | Q(pk__in=wanted[2]))
        return list(without_bulk(rows.select_related("release")).order_by("-number"))
