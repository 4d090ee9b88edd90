"""Maps in the admin pages that need no internet: OpenLayers from our own files, a graticule instead of a base map."""

from typing import Any

from django.contrib.gis.forms.widgets import OpenLayersWidget
from django.utils.safestring import SafeString


class LocalMapWidget(OpenLayersWidget):
    """Draw and edit a geometry over a graticule."""

    template_name = "catalog/map.html"

    class Media:
        extend = False
        css = {"all": ("vendor/ol/ol.css", "gis/css/ol3.css", "catalog/map.css")}
        js = ("vendor/ol/ol.js", "gis/js/OLMapWidget.js")


def shown_map(geometry: Any) -> SafeString:
    """A map of a geometry that can be moved and zoomed, but not changed."""
    widget = LocalMapWidget(attrs={"geom_type": "GEOMETRY"})
    return widget.render("shown_map", geometry, attrs={"id": "shown_map", "disabled": True})
