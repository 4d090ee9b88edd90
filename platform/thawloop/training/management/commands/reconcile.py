"""`manage.py reconcile`."""

from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from typing import Any

from labeling.labelstudio.sync import sync
from thawloop.campaigns.models import Campaign
from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand
from thawloop.core.errors import Refused
from thawloop.core.jobs import reconcile_jobs
from thawloop.core.reconciler import registered_reconcilers, run_once
from thawloop.training.selectors import active_retraining
from thawloop.training.services import advance_retraining, consider_retraining


class Command(ThawloopCommand):
    """Make things right once."""

    help = (
        "Look once at everything that the reconciler process looks at all the time, and mend what queues, webhooks and "
        "killed processes left undone: jobs, annotations that Label Studio did not tell us about, retrainings, "
        "policies. With --campaign only jobs and that campaign."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--campaign", help="name of a campaign; default: all")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """One pass; what one reconciler refuses does not keep the others from their work."""
        done: dict[str, list[str]] = {}
        refused: list[str] = []
        for name, mend in self._menders(options["campaign"]):
            try:
                done[name] = mend()
            except Refused as refusal:
                refused.append(f"{name}: {refusal}")
        if refused:
            raise Refused(" ".join(refused))
        return done

    def _menders(self, campaign_name: str | None) -> list[tuple[str, Callable[[], list[str]]]]:
        if campaign_name is None:
            return [(item.name, partial(run_once, item)) for item in registered_reconcilers()]
        campaign = campaign_named(campaign_name)
        return [
            ("core.jobs", reconcile_jobs),
            ("labeling.sync", lambda: _sync(campaign)),
            ("training.advance", lambda: _advance(campaign)),
            ("training.policy", lambda: _consider(campaign)),
        ]

    def show(self, result: dict[str, Any]) -> None:
        sentences = [f"{name}: {sentence}" for name, done in result.items() for sentence in done]
        self.stdout.write("\n".join(sentences) or "Everything was in order.")


def _sync(campaign: Campaign) -> list[str]:
    if campaign.ls_project_id is None:
        return []
    report = sync(campaign)
    return [f"{campaign.name}: {report}"] if report else []


def _advance(campaign: Campaign) -> list[str]:
    active = active_retraining(campaign)
    if active is None:
        return []
    after = advance_retraining(active)
    return [f"Retraining {after.number}: {active.state} → {after.state}."] if after.state != active.state else []


def _consider(campaign: Campaign) -> list[str]:
    started = consider_retraining(campaign)
    return [f"Started retraining {started.number}: {started.reason}"] if started else []
