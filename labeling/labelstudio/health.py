"""Health checks: Label Studio answers, and no exchange waits for a lead."""

from labeling.labelstudio.client import Client
from labeling.labelstudio.errors import ExchangeStopped
from thawloop.campaigns.models import Campaign


def check_label_studio() -> str:
    """Label Studio answers and our token works."""
    with Client(read_seconds=4.0) as client:
        return f"Label Studio {client.version()} at {client.url}, as {client.whoami().get('email')}"


def check_exchange() -> str:
    """No campaign's exchange with Label Studio waits for a lead."""
    campaigns = Campaign.objects.exclude(state=Campaign.State.CLOSED)
    if stopped := list(campaigns.exclude(ls_stopped="").values_list("ls_stopped", flat=True)):
        raise ExchangeStopped(" ".join(stopped))
    return f"{campaigns.count()} campaigns"
