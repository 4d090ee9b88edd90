"""Addresses of the labeling room."""

from django.urls import path

from labeling.labelstudio.views import webhook

urlpatterns = [path("hooks/labelstudio/<slug:campaign>", webhook, name="labelstudio-webhook")]
