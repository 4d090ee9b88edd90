"""`manage.py reconcile`: one pass of everything that the reconciler process does."""

from argparse import ArgumentParser
from typing import Any

from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand
from thawloop.core.errors import Refused
from thawloop.core.reconciler import registered_reconcilers, run_once


class Command(ThawloopCommand):
    help = (
        "Check once what the reconciler process checks all the time, and complete what queues, webhooks and killed "
        "processes left undone: jobs, annotations that Label Studio did not tell us about, retrainings, policies. With "
        "--campaign, nothing of other campaigns is looked at."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--campaign", help="name of a campaign; default: all")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """One pass; what one reconciler refuses does not keep the others from their work."""
        campaign = campaign_named(options["campaign"]) if options["campaign"] else None
        done: dict[str, list[str]] = {}
        refused: list[str] = []
        for reconciler in registered_reconcilers():
            try:
                done[reconciler.name] = run_once(reconciler, campaign)
            except Refused as refusal:
                refused.append(f"{reconciler.name}: {refusal}")
        if refused:
            raise Refused(" ".join(refused))
        return done

    def show(self, result: dict[str, Any]) -> None:
        sentences = [f"{name}: {sentence}" for name, done in result.items() for sentence in done]
        self.stdout.write("\n".join(sentences) or "Everything was in order.")
