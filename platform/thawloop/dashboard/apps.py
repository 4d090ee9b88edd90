from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "thawloop.dashboard"
    label = "dashboard"
