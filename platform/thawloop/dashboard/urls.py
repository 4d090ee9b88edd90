"""The leads' pages."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from thawloop.dashboard import views

urlpatterns = [
    path("", views.CampaignList.as_view(), name="campaigns"),
    path("login/", LoginView.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("campaigns/<slug:name>/", views.CampaignPage.as_view(), name="campaign"),
    path("campaigns/<slug:name>/panels/<slug:panel>/", views.Panel.as_view(), name="panel"),
    path("campaigns/<slug:name>/learning-curve.json", views.LearningCurve.as_view(), name="learning-curve"),
    path("campaigns/<slug:name>/map/<int:zoom>/<int:x>/<int:y>.mvt", views.MapTile.as_view(), name="map-tile"),
    path("campaigns/<slug:name>/tiles/<str:key>/", views.TilePanel.as_view(), name="tile"),
    path("campaigns/<slug:name>/tiles/<str:key>/picture/", views.TilePicture.as_view(), name="tile-picture"),
    path("campaigns/<slug:name>/do/<slug:action>/", views.Action.as_view(), name="action"),
    path("api/", include("thawloop.dashboard.api_urls")),
]
