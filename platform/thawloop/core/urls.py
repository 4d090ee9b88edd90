"""Addresses of core, for monitoring."""

from django.urls import path

from thawloop.core import metrics, views

urlpatterns = [
    path("healthz", views.alive, name="alive"),
    path("api/health/", views.healthy, name="health"),
    path("metrics", metrics.export, name="metrics"),
]
