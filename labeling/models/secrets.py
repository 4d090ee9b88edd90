"""Secrets that Label Studio uses."""

from django.conf import settings
from django.db import models


class SecretRotation(models.Model):
    """The secrets that Label Studio uses were replaced. Append-only; how many there were decides which ones hold."""

    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT)
    reason = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"secrets replaced {self.created:%Y-%m-%d %H:%M}"
