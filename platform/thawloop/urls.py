"""Every address ThawLoop answers."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("thawloop.core.urls")),
    path("", include("thawloop.catalog.urls")),
    path("", include("labeling.labelstudio.urls")),
    path("", include("thawloop.dashboard.urls")),
]
handler403 = "thawloop.dashboard.views.forbidden"
