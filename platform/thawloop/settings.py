"""ThawLoop's settings. Every value comes from the environment (or `.env`); `.env.example` documents each one."""

import logging
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.urls import reverse_lazy

from thawloop.geolibs import in_wheel

BASE_DIR = Path(__file__).resolve().parents[2]

env = environ.Env()
environ.Env.read_env(env.str("THAWLOOP_ENV_FILE", str(BASE_DIR / ".env")))
if "THAWLOOP_ENV_FILE" not in env:
    # What `make serve` wrote down: commands in another terminal find the servers it runs.
    environ.Env.read_env(str(BASE_DIR / "var" / "serve" / "environment"))

# --- Where things live -------------------------------------------------------------------------------------------
VAR_DIR = Path(env.str("THAWLOOP_VAR", str(BASE_DIR / "var")))
THAWLOOP_ARTIFACTS = env.str("THAWLOOP_ARTIFACTS", str(VAR_DIR / "artifacts"))
# Rasters and label files may only be read from below these roots (paths or s3:// prefixes).
THAWLOOP_DATA_ROOTS = env.list("THAWLOOP_DATA_ROOTS", default=[str(VAR_DIR / "data"), str(VAR_DIR / "demo")])
# Tile pictures that were drawn before, and how many megabytes of them are kept (0: none).
THAWLOOP_PICTURE_CACHE = str(VAR_DIR / "pictures")
THAWLOOP_PICTURE_CACHE_MB = env.int("THAWLOOP_PICTURE_CACHE_MB", 1024)
THAWLOOP_RASTER_CACHE_MB = env.int("THAWLOOP_RASTER_CACHE_MB", 512)
THAWLOOP_MAX_RASTER_PIXELS = env.int("THAWLOOP_MAX_RASTER_PIXELS", 40_000_000_000)
THAWLOOP_MAX_VECTOR_BYTES = env.int("THAWLOOP_MAX_VECTOR_BYTES", 512 * 1024 * 1024)
# What a vector file may cost: memory of the process that reads it, seconds for a feature (of processor) and in all.
THAWLOOP_VECTOR_MEMORY_BYTES = env.int("THAWLOOP_VECTOR_MEMORY_BYTES", 4 * 1024**3)
THAWLOOP_VECTOR_FEATURE_SECONDS = env.int("THAWLOOP_VECTOR_FEATURE_SECONDS", 10)
THAWLOOP_VECTOR_SECONDS = env.float("THAWLOOP_VECTOR_SECONDS", 1800.0)
# The largest area that one label of a file may have, in square kilometres: what is larger is no landform but a mistake.
THAWLOOP_MAX_LANDFORM_KM2 = env.float("THAWLOOP_MAX_LANDFORM_KM2", 5000.0)
AWS_ENDPOINT_URL = env.str("AWS_ENDPOINT_URL", "")  # an S3 other than Amazon's; s3fs reads it itself
THAWLOOP_URL = env.str("THAWLOOP_URL", "http://127.0.0.1:8000")
FORCE_SCRIPT_NAME = (
    urlsplit(THAWLOOP_URL).path.rstrip("/") or None
)  # below a path: links get it, the proxy takes it off

# --- Security ----------------------------------------------------------------------------------------------------
DEBUG = env.bool("DJANGO_DEBUG", False)
SECRET_KEY = env.str("DJANGO_SECRET_KEY", "insecure-development-key" if DEBUG else "")
if not SECRET_KEY:
    from thawloop.secret_key import persistent_secret_key

    SECRET_KEY = persistent_secret_key(VAR_DIR / "secrets" / "django_secret_key")
ALLOWED_HOSTS = env.list("DJANGO_ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("DJANGO_CSRF_TRUSTED_ORIGINS", default=[])
# Label Studio uses Django's default cookie names, and cookies ignore ports.
SESSION_COOKIE_NAME = "thawloop_session"
CSRF_COOKIE_NAME = "thawloop_csrf"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("DJANGO_SECURE_COOKIES", False)
# The web server passes this on from a trusted proxy only (thawloop.serving): links keep the scheme of the outside.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
THAWLOOP_TOKEN_DAYS = env.int("THAWLOOP_TOKEN_DAYS", 90)  # how long an API token works if nothing else is asked for
THAWLOOP_METRICS_TOKEN = env.str("THAWLOOP_METRICS_TOKEN", "")  # without one, /metrics answers this machine only

# --- Applications ------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "thawloop.core.admin_app.Admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.contrib.gis",
    "rest_framework",
    "rest_framework.authtoken",
    "rest_framework_gis",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_prometheus",
    "django_structlog",
    "thawloop.core",
    "thawloop.catalog",
    "thawloop.campaigns",
    "thawloop.registry",
    "labeling",
    "thawloop.releases",
    "thawloop.training",
    "thawloop.setup",
    "thawloop.dashboard",
]
MIGRATION_MODULES = {
    "core": "migrations.core",
    "catalog": "migrations.catalog",
    "campaigns": "migrations.campaigns",
    "registry": "migrations.registry",
    "labeling": "migrations.labeling",
    "releases": "migrations.releases",
    "training": "migrations.training",
}
MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "thawloop.core.middleware.RequestContextMiddleware",
    "thawloop.core.middleware.ContentSecurityPolicyMiddleware",
    "thawloop.core.middleware.RefusalMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
ROOT_URLCONF = "thawloop.urls"
WSGI_APPLICATION = "thawloop.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTHENTICATION_BACKENDS = ["thawloop.core.authentication.GuardedBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "campaigns"
LOGOUT_REDIRECT_URL = "login"

# --- Database and queues -----------------------------------------------------------------------------------------
DATABASES = {"default": env.db_url("DATABASE_URL", "postgis://thawloop@127.0.0.1:5432/thawloop")}
DATABASES["default"]["ENGINE"] = "django.contrib.gis.db.backends.postgis"
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DATABASES["default"]["CONN_MAX_AGE"] = 60  # seconds that a thread keeps its connection
# Compiling a query (PostgreSQL's JIT) takes longer than any of ours, and PostGIS's high costs ask for it. Cursors are
# read to their end: with a plan that is quick for their first rows, choosing among 10,000 tiles took 9 s, not 0.3.
DATABASES["default"].setdefault("OPTIONS", {}).setdefault("options", "-c jit=off -c cursor_tuple_fraction=1")
DATABASES["default"]["OPTIONS"]["connect_timeout"] = env.int("THAWLOOP_DB_CONNECT_TIMEOUT", 10)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REDIS_URL = env.str("REDIS_URL", "redis://127.0.0.1:6379/0")
GDAL_LIBRARY_PATH = env.str("GDAL_LIBRARY_PATH", "") or in_wheel("pyogrio", "libgdal")
GEOS_LIBRARY_PATH = env.str("GEOS_LIBRARY_PATH", "") or in_wheel("shapely", "libgeos_c")

# --- Jobs --------------------------------------------------------------------------------------------------------
THAWLOOP_JOB_LEASE_SECONDS = env.float("THAWLOOP_JOB_LEASE_SECONDS", 30.0)
THAWLOOP_JOB_HEARTBEAT_SECONDS = env.float("THAWLOOP_JOB_HEARTBEAT_SECONDS", 5.0)
THAWLOOP_JOB_DISPATCH_GRACE_SECONDS = env.float("THAWLOOP_JOB_DISPATCH_GRACE_SECONDS", 60.0)
THAWLOOP_RECONCILE_SECONDS = env.float("THAWLOOP_RECONCILE_SECONDS", 5.0)

# --- Label Studio and the ML backend -----------------------------------------------------------------------------
LABEL_STUDIO_URL = env.str("LABEL_STUDIO_URL", "http://127.0.0.1:8080")
LABEL_STUDIO_PUBLIC_URL = env.str("LABEL_STUDIO_PUBLIC_URL", LABEL_STUDIO_URL)  # where people's browsers find it
LABEL_STUDIO_TOKEN = env.str("LABEL_STUDIO_TOKEN", "")
# Where Label Studio's server finds us (webhooks) and the ML backend; pictures go to browsers, under THAWLOOP_URL.
THAWLOOP_CALLBACK_URL = env.str("THAWLOOP_CALLBACK_URL", THAWLOOP_URL)
ML_BACKEND_URL = env.str("ML_BACKEND_URL", "http://127.0.0.1:9090")
THAWLOOP_WEBHOOK_SECRET = env.str("THAWLOOP_WEBHOOK_SECRET", "")
THAWLOOP_ML_BACKEND_SECRET = env.str("THAWLOOP_ML_BACKEND_SECRET", "")
THAWLOOP_DEVICE = env.str("THAWLOOP_DEVICE", "auto")
THAWLOOP_TORCH_THREADS = env.int("THAWLOOP_TORCH_THREADS", 0)  # 0: as many as there are processors for this process
# Modules that take seconds to import, by the queue whose jobs need them.
THAWLOOP_IMPORT_AHEAD = {"gpu": ("ml_backend.detector.training", "ml_backend.detector.inference")}

# --- API ---------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "thawloop.core.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["thawloop.core.permissions.ModelPermissions"],
    "DEFAULT_FILTER_BACKENDS": [
        "django_filters.rest_framework.DjangoFilterBackend",
        "thawloop.core.bulk.LightRelations",
    ],
    "DEFAULT_PAGINATION_CLASS": "thawloop.core.pagination.KeysetPagination",
    "PAGE_SIZE": 100,
    "DEFAULT_SCHEMA_CLASS": "thawloop.core.openapi.Description",
    "EXCEPTION_HANDLER": "thawloop.core.errors.api_exception_handler",
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.ScopedRateThrottle"],
    "DEFAULT_THROTTLE_RATES": {"expensive": env.str("THAWLOOP_THROTTLE_EXPENSIVE", "60/min")},
}
SPECTACULAR_SETTINGS = {
    "TITLE": "ThawLoop API",
    "DESCRIPTION": "Active-learning labelling and retraining for retrogressive thaw slumps.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# --- Pages and static files --------------------------------------------------------------------------------------
LANGUAGE_CODE = "en-gb"
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
UNFOLD = {
    "SITE_TITLE": "ThawLoop",
    "SITE_HEADER": "ThawLoop",
    "SITE_URL": reverse_lazy("campaigns"),
    "SHOW_HISTORY": True,
}

# --- Logging -----------------------------------------------------------------------------------------------------
from thawloop.core.logs import logging_config  # noqa: E402

# A reverse proxy or a caller may name the request (X-Request-ID); thawloop.core.middleware refuses harmful names.
DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID = True
DJANGO_STRUCTLOG_STATUS_START_LOG_LEVEL = logging.DEBUG  # one line per request, when it is answered

LOGGING = logging_config(json_lines=env.bool("THAWLOOP_LOG_JSON", False), level=env.str("THAWLOOP_LOG_LEVEL", "INFO"))
