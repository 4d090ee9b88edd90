"""The leads' pages: parse, authorise, ask a selector or call a service."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin, PermissionRequiredMixin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.functional import cached_property
from django.views.generic import ListView, TemplateView, View

from labeling.models import AnnotationTask, Prediction
from thawloop.campaigns.models import Campaign
from thawloop.catalog.models import Tile
from thawloop.catalog.pictures import picture_url
from thawloop.catalog.views import serve_picture
from thawloop.core.errors import Refused
from thawloop.core.selectors import people_to_ask
from thawloop.dashboard import actions, selectors
from thawloop.dashboard.vector_tiles import vector_tile
from thawloop.registry.selectors import champion, previous_champion
from thawloop.training.selectors import CampaignState, explain_policy, learning_curve

SEE = "campaigns.view_campaign"


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """The page for 403: why it is refused, and whom to ask."""
    no_role = request.user.is_authenticated and not request.user.get_all_permissions()
    context = {"no_role": no_role, "sentence": str(exception or ""), "people": people_to_ask()}
    return render(request, "dashboard/forbidden.html", context, status=403)


class CampaignList(LoginRequiredMixin, PermissionRequiredMixin, ListView):
    """Every campaign as a card."""

    permission_required = SEE
    template_name = "dashboard/campaigns.html"
    context_object_name = "campaigns"

    def get_queryset(self) -> Any:
        return selectors.campaign_cards()


class CampaignView(LoginRequiredMixin, PermissionRequiredMixin):
    """What every address below /campaigns/<name>/ shares."""

    permission_required = SEE

    @cached_property
    def campaign(self) -> Campaign:
        """The campaign of the address."""
        return get_object_or_404(Campaign.objects.select_related("grid"), name=self.kwargs["name"])  # type: ignore[attr-defined]


class CampaignPage(CampaignView, TemplateView):
    """One campaign: its state, the queue, the learning curve, models, releases and the map."""

    template_name = "dashboard/campaign.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(
            campaign=self.campaign,
            links=selectors.label_studio_links(self.campaign),
            map=selectors.map_settings(self.campaign),
            **kwargs,
        )


def _loop(campaign: Campaign) -> dict[str, Any]:
    state = CampaignState(campaign)
    return {
        "policy": explain_policy(state),
        "champion": state.champion,
        "previous": previous_champion(campaign),
        "label_count": state.stock.labels,
        "retraining": state.last,
    }


def _queue(campaign: Campaign) -> dict[str, Any]:
    return {"queue": selectors.queue_of(campaign), "links": selectors.label_studio_links(campaign)}


PANELS: dict[str, Callable[[Campaign], dict[str, Any]]] = {
    "loop": _loop,
    "jobs": lambda campaign: {"jobs": selectors.jobs_of(campaign)},
    "queue": _queue,
    "models": lambda campaign: {"versions": selectors.versions_of(campaign), "champion": champion(campaign)},
    "releases": lambda campaign: {"releases": selectors.releases_of(campaign)},
}


class Panel(CampaignView, View):
    """One part of the campaign page, fetched again while the page is open."""

    def get(self, request: HttpRequest, name: str, panel: str) -> HttpResponse:
        if panel not in PANELS:
            raise Http404
        context = {"campaign": self.campaign, **PANELS[panel](self.campaign)}
        return render(request, f"dashboard/panels/{panel}.html", context)


class LearningCurve(CampaignView, View):
    """The points of the learning curve."""

    def get(self, request: HttpRequest, name: str) -> JsonResponse:
        return JsonResponse({"points": [vars(point) for point in learning_curve(self.campaign)]})


class MapTile(CampaignView, View):
    """One vector tile of the campaign's map."""

    def get(self, request: HttpRequest, name: str, zoom: int, x: int, y: int) -> HttpResponse:
        best = champion(self.campaign)
        try:
            body = vector_tile(self.campaign, best.pk if best else None, zoom, x, y)
        except ValueError as error:
            raise Http404(str(error)) from error
        response = HttpResponse(body, content_type="application/vnd.mapbox-vector-tile")
        response["Cache-Control"] = "private, no-cache"
        return response


class TilePanel(CampaignView, View):
    """One tile: its pictures, its task, what the champion says."""

    def get(self, request: HttpRequest, name: str, key: str) -> HttpResponse:
        tile = get_object_or_404(Tile.objects.select_related("region"), key=key, grid=self.campaign.grid)
        shown = self.campaign.campaign_modalities.filter(is_shown=True).select_related("modality")
        context = {
            "campaign": self.campaign,
            "tile": tile,
            "pictures": [(link.modality, picture_url(tile, link.modality)) for link in shown],
            "task": AnnotationTask.objects.filter(campaign=self.campaign, tile=tile).select_related("batch").first(),
            "prediction": Prediction.objects.filter(tile=tile, model_version=champion(self.campaign))
            .prefetch_related("instances")
            .first(),
            "links": selectors.label_studio_links(self.campaign),
        }
        return render(request, "dashboard/panels/tile.html", context)


class TilePicture(CampaignView, View):
    """The picture of a tile for the map: the anchor modality's, in the size that `?size=` says."""

    def get(self, request: HttpRequest, name: str, key: str) -> HttpResponseBase:
        tile = get_object_or_404(Tile.objects.select_related("grid"), key=key, grid=self.campaign.grid)
        anchor = get_object_or_404(self.campaign.campaign_modalities.select_related("modality__source"), is_anchor=True)
        return serve_picture(request, tile, anchor.modality, shared=False)


class Action(CampaignView, View):
    """What a lead's button does. Each action names the permission it needs."""

    def post(self, request: HttpRequest, name: str, action: str) -> HttpResponse:
        if action not in actions.ACTIONS:
            raise Http404
        chosen = actions.ACTIONS[action]
        if not request.user.has_perm(chosen.permission):
            raise PermissionDenied(f"This needs the permission {chosen.permission}; ask a lead.")
        try:
            messages.success(request, chosen.run(self.campaign, request.POST))
        except Refused as refusal:
            messages.error(request, str(refusal))
        if request.headers.get("HX-Request"):
            return render(request, "dashboard/messages.html")
        return redirect("campaign", name=name)
