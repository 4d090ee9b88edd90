from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "thawloop.demo"
    label = "demo"
