# The worker that trains and predicts: torch with CUDA from its own wheels, so the base image needs none.
# CPU only: docker compose build --build-arg TORCH_BACKEND=cpu worker-gpu
FROM python:3.11-slim-bookworm AS packages
ARG TORCH_BACKEND=
COPY requirements/dev.txt requirements/worker.txt requirements/overrides.txt /requirements/
RUN pip install --no-cache-dir "$(grep '^uv==' /requirements/dev.txt)" \
    && uv venv /opt/thawloop \
    && if [ -n "$TORCH_BACKEND" ]; then export UV_TORCH_BACKEND="$TORCH_BACKEND"; fi \
    && uv pip install --no-cache --python /opt/thawloop/bin/python \
        --requirement /requirements/worker.txt --override /requirements/overrides.txt

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
CMD ["python", "manage.py", "worker", "--queue", "gpu"]
