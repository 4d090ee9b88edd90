"""Gauges for Prometheus that are read from the database when asked."""

from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse
from django_prometheus.exports import ExportToDjangoView
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from thawloop.core.selectors import job_counts, oldest_queued_seconds

_registry = CollectorRegistry()


class JobCollector(Collector):
    """Jobs by queue and state, and how long the oldest has waited."""

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("thawloop_jobs", "Jobs by queue and state.", labels=["queue", "state"])
        for queue, state, count in job_counts():
            jobs.add_metric([queue, state], count)
        yield jobs
        waited = GaugeMetricFamily(
            "thawloop_oldest_queued_job_seconds", "How long the oldest queued job has waited.", labels=["queue"]
        )
        for queue, seconds in oldest_queued_seconds().items():
            waited.add_metric([queue], seconds)
        yield waited

    def describe(self) -> list[Metric]:
        """Nothing is asked of the database before the first scrape."""
        return []


def register() -> None:
    """Measure jobs."""
    _registry.register(JobCollector())


def export(request: HttpRequest) -> HttpResponse:
    """django-prometheus's metrics of this web process, then ours (the same whichever process answers)."""
    response: HttpResponse = ExportToDjangoView(request)
    response.write(generate_latest(_registry))
    return response
