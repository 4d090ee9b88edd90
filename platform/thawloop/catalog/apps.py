from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "thawloop.catalog"
    label = "catalog"
