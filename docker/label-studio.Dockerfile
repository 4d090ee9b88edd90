# Label Studio in an environment of its own, served by gunicorn; its user and tables are made on the first start.
FROM python:3.11-slim-bookworm
COPY requirements/dev.txt requirements/labelstudio.txt /requirements/
RUN pip install --no-cache-dir "$(grep '^uv==' /requirements/dev.txt)" \
    && uv venv /opt/label-studio \
    && uv pip install --no-cache --python /opt/label-studio/bin/python --requirement /requirements/labelstudio.txt \
    && useradd --system --uid 10001 --home-dir /var/lib/label-studio --create-home labelstudio
COPY platform/thawloop/serving /opt/platform/thawloop/serving
ENV PATH=/opt/label-studio/bin:$PATH LABEL_STUDIO_BASE_DATA_DIR=/var/lib/label-studio \
    INSIDE=/opt/platform/thawloop/serving/inside_labelstudio
USER 10001
WORKDIR /var/lib/label-studio
EXPOSE 8080
CMD ["sh", "-c", "python $INSIDE/migrate.py && exec python $INSIDE/server.py 0.0.0.0:8080"]
