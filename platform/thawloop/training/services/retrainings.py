"""Beginning, ending and repeating retrainings."""

from django.db import transaction
from django.db.models import Max

from thawloop.campaigns.models import Campaign
from thawloop.core.context import current_actor
from thawloop.core.errors import Refused
from thawloop.core.jobs import cancel_job
from thawloop.core.models import Job
from thawloop.core.services import audit
from thawloop.training.errors import RetrainingConflict, RetrainingRefused
from thawloop.training.models import Retraining
from thawloop.training.selectors import CampaignState, explain_policy, may_be_due, obstacle
from thawloop.training.services.steps import advance_locked, advance_retraining, end, locked, step_key

State = Retraining.State


def start_retraining(
    campaign: Campaign, *, reason: str, seed: int | None = None, seen: CampaignState | None = None
) -> Retraining:
    """Begin a retraining; its first step's job is there when the transaction commits.

    Args:
        campaign: Not closed, with labelled tiles in its train and test regions.
        reason: Why: the policy's explanation, or a person's words.
        seed: Of weights and data order; the campaign's model setting plus the number if not given.
        seen: What the caller has decided on; read now if not given.

    Raises:
        RetrainingConflict: one is running, or was started since the caller looked.
        RetrainingRefused: the campaign is closed, has nothing to train or test on, or its settings make no sense.
    """
    seen = seen or CampaignState(campaign)
    # Counted before the row is locked: that takes seconds on a large campaign. The freeze looks at the labels again.
    stock, known = seen.stock, seen.last
    with transaction.atomic():
        campaign = Campaign.objects.select_for_update(of=("self",)).get(pk=campaign.pk)
        now = CampaignState(campaign, stock)
        if active := now.active:
            raise RetrainingConflict(
                f"Retraining {active.number} of `{campaign.name}` is running ({active.state}): wait for it, or cancel "
                "it first."
            )
        if now.last is not None and now.last != known:
            raise RetrainingConflict(f"Retraining {now.last.number} of `{campaign.name}` was started meanwhile.")
        if why := obstacle(now):
            raise RetrainingRefused(f"Campaign `{campaign.name}` cannot be retrained: {why}")
        number = _next_number(campaign)
        retraining = Retraining.objects.create(
            campaign=campaign,
            number=number,
            reason=reason,
            seed=now.settings.seed + number if seed is None else seed,
            requested_by=current_actor().user,
        )
        audit("training.start_retraining", retraining, after={"number": number}, reason=reason)
        advance_locked(retraining)
    return retraining


def cancel_retraining(retraining: Retraining, *, reason: str = "") -> Retraining:
    """End a retraining and stop its jobs; what was trained stays and may be used by a retry.

    Raises:
        RetrainingConflict: it has ended already.
    """
    jobs = Job.objects.filter(key__startswith=step_key(retraining.pk), state__in=Job.ACTIVE)
    with transaction.atomic():
        # Jobs first, then the retraining: the order in which a failing job takes them.
        list(jobs.select_for_update(of=("self",)).order_by("pk"))
        row = locked(retraining.pk)
        if row.state in Retraining.FINISHED:
            raise RetrainingConflict(f"Retraining {row.number} is {row.state} already.")
        end(row, State.CANCELLED, reason or f"Cancelled by {current_actor().name}.")
        for job in jobs.all():
            cancel_job(job, reason=f"retraining {row.number} was cancelled")
    return row


def retry_retraining(retraining: Retraining) -> Retraining:
    """Go on with a failed or cancelled retraining where it stopped.

    Raises:
        RetrainingConflict: it did not fail, a later one exists, or one is running.
    """
    with transaction.atomic():
        row = locked(retraining.pk)
        campaign = Campaign.objects.select_for_update(of=("self",)).get(pk=row.campaign_id)
        if row.state not in (State.FAILED, State.CANCELLED):
            raise RetrainingConflict(f"Retraining {row.number} is {row.state}; only one that failed can be retried.")
        if campaign.retrainings.filter(number__gt=row.number).exists():  # one at a time, and in order
            raise RetrainingConflict(f"A later retraining than {row.number} exists: start a new one instead.")
        before = {"state": row.state, "error": row.error}
        row.state, row.error, row.finished = State.RELEASING, "", None
        row.save(update_fields=["state", "error", "finished"])
        audit("training.retry_retraining", row, before=before, after={"state": row.state})
        advance_locked(row, again=True)
    return row


def consider_retraining(campaign: Campaign) -> Retraining | None:
    """Begin a retraining if the campaign's policy says that it is due; returns it, or None."""
    state = CampaignState(campaign)
    if not may_be_due(state):
        return None
    explanation = explain_policy(state)
    if not explanation.due:
        return None
    try:
        return start_retraining(campaign, reason=" ".join(explanation.reasons), seen=state)
    except RetrainingConflict:
        return None  # somebody else was faster


def apply_policies(campaign: Campaign | None = None) -> list[str]:
    """Begin what is due in a campaign, or in any (reconciler `training.policy`); returns what was done, in sentences.

    Raises:
        Refused: a campaign is due but cannot be retrained; the others were seen to.
    """
    campaigns = Campaign.objects.filter(state=Campaign.State.ACTIVE, retrain_policy__enabled=True)
    if campaign is not None:
        campaigns = campaigns.filter(pk=campaign.pk)
    done, failures = [], []
    for found in campaigns.order_by("pk"):
        try:
            started = consider_retraining(found)
        except Refused as error:
            failures.append(str(error))
            continue
        if started:
            done.append(f"Started retraining {started.number} of `{found.name}`: {started.reason}")
    if failures:
        raise Refused(" ".join(failures))
    return done


def advance_all(campaign: Campaign | None = None) -> list[str]:
    """Advance every retraining, of a campaign or of all, that has not ended (reconciler `training.advance`)."""
    active = Retraining.objects.exclude(state__in=Retraining.FINISHED).order_by("pk")
    done = []
    for retraining in active if campaign is None else active.filter(campaign=campaign):
        before = retraining.state
        after = advance_retraining(retraining)
        if after.state != before:
            done.append(
                f"{after.campaign.name} retraining {after.number}: {before} → {after.state}. {after.error}".strip()
            )
    return done


def _next_number(campaign: Campaign) -> int:
    """A retraining and the model it makes have the same number, so that its name is known from the start."""
    numbers = (
        campaign.retrainings.aggregate(last=Max("number"))["last"],
        campaign.model_versions.aggregate(last=Max("number"))["last"],
    )
    return max(number or 0 for number in numbers) + 1
