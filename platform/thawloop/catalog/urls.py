"""The catalog's addresses."""

from django.urls import path

from thawloop.catalog import views

app_name = "catalog"
urlpatterns = [path("tiles/<str:key>/<slug:modality>.png", views.picture, name="picture")]
