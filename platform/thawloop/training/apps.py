from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "thawloop.training"
    label = "training"
