"""The catalog in the admin. Definitions are made through services and, once made, only their wording changes."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.gis.db.models import MultiPolygonField
from django.db.models import Model, QuerySet
from django.forms import Media
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.paginator import InfinitePaginator

from thawloop.catalog import services
from thawloop.catalog.maps import LocalMapWidget, shown_map
from thawloop.catalog.models import Modality, Region, Scene, Tile, TileGrid
from thawloop.catalog.pictures import picture_url
from thawloop.core.admin import LightAdmin
from thawloop.core.bulk import count_of
from thawloop.core.errors import Refused


class DefinitionAdmin(LightAdmin):
    """Rows that a service defines; afterwards only the fields in `services.AMENDABLE` may change."""

    shown: tuple[str, ...] = ()

    @property
    def media(self) -> Media:
        return super().media + LocalMapWidget().media

    def define(self, values: dict[str, Any]) -> Model:
        """Call the service."""
        raise NotImplementedError

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return (
            tuple(f for f in self._columns() if f not in services.AMENDABLE[self.model._meta.model_name]) + self.shown
        )

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [*self._columns(), *(self.shown if obj else ())]

    def _columns(self) -> list[str]:
        return [f.name for f in self.model._meta.fields if f.editable and f.name not in ("id", "geometry", "footprint")]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            services.amend(obj, {name: form.cleaned_data[name] for name in form.changed_data})
            return
        obj.pk = self.define(form.cleaned_data).pk

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except Refused as refusal:
            self.message_user(request, str(refusal), messages.ERROR)
            request.method = "GET"
            return super().changeform_view(request, *args, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Modality)
class ModalityAdmin(DefinitionAdmin):
    list_display = ("name", "title", "kind", "band_names", "value_range", "derivation", "source", "scene_count")
    list_filter = ("kind", "derivation", "is_static")
    list_select_related = ("source",)
    search_fields = ("name", "title")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Modality]:
        return super().get_queryset(request).annotate(scene_count=count_of(Scene, "modality"))

    def define(self, values: dict[str, Any]) -> Model:
        return services.define_modality(**values)

    @admin.display(description="bands")
    def band_names(self, modality: Modality) -> str:
        return ", ".join(modality.bands)

    @admin.display(description="range")
    def value_range(self, modality: Modality) -> str:
        return f"{modality.range_min:g} to {modality.range_max:g} {modality.unit}"

    @admin.display(description="scenes", ordering="scene_count")
    def scene_count(self, modality: Any) -> int:
        return int(modality.scene_count)


@admin.register(TileGrid)
class TileGridAdmin(DefinitionAdmin):
    list_display = ("name", "srid", "pixel_size", "tile_size", "overlap")
    search_fields = ("name",)

    def define(self, values: dict[str, Any]) -> Model:
        return services.define_grid(**values)


@admin.register(Region)
class RegionAdmin(DefinitionAdmin):
    list_display = ("name", "title", "parent", "created")
    list_select_related = ("parent",)
    search_fields = ("name", "title")
    shown = ("map",)
    formfield_overrides = {MultiPolygonField: {"widget": LocalMapWidget}}

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [*super().get_fields(request, obj), *([] if obj else ["geometry"])]

    def define(self, values: dict[str, Any]) -> Model:
        return services.define_region(**values)

    @admin.display(description="outline")
    def map(self, region: Region) -> SafeString:
        return shown_map(region.geometry)


@admin.register(Scene)
class SceneAdmin(DefinitionAdmin):
    list_display = ("file", "modality", "acquired", "size", "metres", "provider")
    list_filter = ("modality", "provider")
    list_select_related = ("modality",)
    search_fields = ("uri", "checksum")
    date_hierarchy = "acquired"
    list_defer = ("crs",)
    shown = ("map",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # Scenes are registered by `manage.py ingest` and the API.

    @admin.display(ordering="uri")
    def file(self, scene: Scene) -> str:
        return scene.uri.rsplit("/", 1)[-1]

    @admin.display(description="pixels")
    def size(self, scene: Scene) -> str:
        return f"{scene.width} x {scene.height}"

    @admin.display(description="metres per pixel", ordering="pixel_size")
    def metres(self, scene: Scene) -> str:
        return f"{scene.pixel_size:.3g}"

    @admin.display(description="footprint")
    def map(self, scene: Scene) -> SafeString:
        return shown_map(scene.footprint)


@admin.register(Tile)
class TileAdmin(DefinitionAdmin):
    list_display = ("key", "grid", "region", "period", "col", "row")
    list_filter = ("grid", "period", "region")
    list_select_related = ("grid", "region")
    search_fields = ("key",)
    shown = ("map", "pictures")
    paginator = InfinitePaginator
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # Tiles are made over a region: `services.create_tiles`.

    @admin.display(description="footprint")
    def map(self, tile: Tile) -> SafeString:
        return shown_map(tile.geometry)

    @admin.display
    def pictures(self, tile: Tile) -> SafeString:
        figure = (
            '<figure style="display:inline-block;margin:0 1rem 1rem 0">'
            '<img src="{}" alt="{}" width="256" loading="lazy">'
            "<figcaption>{}</figcaption></figure>"
        )
        rows = [(picture_url(tile, m), m.name, m.title) for m in Modality.objects.order_by("name")]
        return format_html("<div>{}</div>", format_html_join("", figure, rows))
