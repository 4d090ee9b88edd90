"""The REST API: every room's viewsets under one router, its OpenAPI description, and tokens."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.routers import DefaultRouter

from labeling import api as labeling
from thawloop.catalog import api as catalog
from thawloop.core import api as core
from thawloop.releases import api as releases
from thawloop.training import api as training

router = DefaultRouter()
router.register("jobs", core.JobViewSet)
router.register("audit", core.AuditEntryViewSet)
router.register("modalities", catalog.ModalityViewSet)
router.register("regions", catalog.RegionViewSet)
router.register("scenes", catalog.SceneViewSet)
router.register("grids", catalog.TileGridViewSet)
router.register("tiles", catalog.TileViewSet)
router.register("classes", labeling.LandformClassViewSet)
router.register("campaigns", labeling.CampaignViewSet)
router.register("tasks", labeling.AnnotationTaskViewSet)
router.register("annotations", labeling.AnnotationViewSet)
router.register("labels", labeling.LabelViewSet)
router.register("predictions", labeling.PredictionViewSet)
router.register("batches", labeling.AcquisitionBatchViewSet)
router.register("imports", labeling.LabelImportViewSet)
router.register("releases", releases.ReleaseViewSet)
router.register("policies", training.RetrainPolicyViewSet)
router.register("retrainings", training.RetrainingViewSet)
router.register("runs", training.TrainingRunViewSet)
router.register("models", training.ModelVersionViewSet)
router.register("evaluations", training.EvaluationViewSet)
router.register("promotions", training.PromotionViewSet)

urlpatterns = [
    path("token/", core.TokenView.as_view(), name="api-token"),
    path("schema/", SpectacularAPIView.as_view(), name="api-schema"),
    # A page has no metadata that OPTIONS could answer with.
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="api-schema", metadata_class=None), name="api-docs"),
    path("", include(router.urls)),
]
