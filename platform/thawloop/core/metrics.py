"""Gauges for Prometheus that are read from the database when asked."""

import hmac
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from django_prometheus.exports import ExportToDjangoView
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from thawloop.core.selectors import job_counts, oldest_queued_seconds

_registry = CollectorRegistry()


class JobCollector(Collector):
    """Whether the database answers; jobs by queue and state, and how long the oldest has waited, if it does."""

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("thawloop_database_up", "1 if PostgreSQL answers, else 0.")
        try:
            counts, oldest = job_counts(), oldest_queued_seconds()
        except (OperationalError, InterfaceError):
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        jobs = GaugeMetricFamily("thawloop_jobs", "Jobs by queue and state.", labels=["queue", "state"])
        for queue, state, count in counts:
            jobs.add_metric([queue, state], count)
        yield jobs
        waited = GaugeMetricFamily(
            "thawloop_oldest_queued_job_seconds", "How long the oldest queued job has waited.", labels=["queue"]
        )
        for queue, seconds in oldest.items():
            waited.add_metric([queue], seconds)
        yield waited

    def describe(self) -> list[Metric]:
        """Nothing is asked of the database before the first scrape."""
        return []


def register() -> None:
    """Measure jobs."""
    _registry.register(JobCollector())


@require_safe
def export(request: HttpRequest) -> HttpResponse:
    """django-prometheus's metrics, then ours, for whoever has the token; without a token set, for this machine."""
    if not _may_read(request):
        return HttpResponse("Send `Authorization: Bearer` with THAWLOOP_METRICS_TOKEN.\n", "text/plain", 403)
    response: HttpResponse = ExportToDjangoView(request)
    response.write(generate_latest(_registry))
    return response


def _may_read(request: HttpRequest) -> bool:
    if token := settings.THAWLOOP_METRICS_TOKEN:
        return hmac.compare_digest(request.headers.get("Authorization", "").encode(), f"Bearer {token}".encode())
    # Behind a proxy on this machine everybody seems to come from here, but not to our own host name.
    asked = urlsplit(f"//{request.get_host()}").hostname or ""
    forwarded = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    return not forwarded and _is_loopback(request.META.get("REMOTE_ADDR", "")) and _is_loopback(asked)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
