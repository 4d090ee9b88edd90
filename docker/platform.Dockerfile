# Web pages, command line, reconciler, ML backend, and the workers that need no torch.
FROM python:3.11-slim-bookworm AS packages
COPY requirements/dev.txt requirements/base.txt requirements/overrides.txt /requirements/
RUN pip install --no-cache-dir "$(grep '^uv==' /requirements/dev.txt)" \
    && uv venv /opt/thawloop \
    && uv pip install --no-cache --python /opt/thawloop/bin/python \
        --requirement /requirements/base.txt --override /requirements/overrides.txt

FROM python:3.11-slim-bookworm
# Rasterio's wheel needs Debian's libexpat, whatever its patch level
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/thawloop --create-home thawloop
COPY --from=packages /opt/thawloop /opt/thawloop
COPY manage.py /app/
COPY platform /app/platform
COPY contracts /app/contracts
COPY labeling /app/labeling
COPY ml_backend /app/ml_backend
COPY migrations /app/migrations
WORKDIR /app
ENV PATH=/opt/thawloop/bin:$PATH PYTHONPATH=/app/platform:/app PYTHONUNBUFFERED=1 THAWLOOP_VAR=/var/lib/thawloop
USER 10001
EXPOSE 8000
CMD ["gunicorn", "--config", "python:thawloop.serving.web", "--bind", "0.0.0.0:8000"]
