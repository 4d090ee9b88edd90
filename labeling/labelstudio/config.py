"""The labeling interface of a campaign: what annotators see, as Label Studio's XML."""

from collections.abc import Sequence
from xml.etree import ElementTree

from labeling.labelstudio.errors import LabelStudioRefused
from labeling.submission import NO_STATEMENT
from thawloop.campaigns.models import Campaign
from thawloop.catalog.models import Modality

POLYGONS = "polygons"
BRUSH = "brush"
VERDICT = "verdict"
COMMENT = "comment"
NOTE = "thawloop_note"  # the key in a task's data under which annotators see what was not understood

_STYLE = """
.thawloop-pictures { display: grid; grid-template-columns: 2fr 1fr; gap: 8px; }
.thawloop-side { display: flex; flex-direction: column; gap: 8px; }
.thawloop-tools { display: flex; gap: 12px; align-items: center; flex-wrap: wrap; }
"""


def picture_name(modality: Modality) -> str:
    """Name of a modality's picture in the interface and in the tasks' data."""
    return f"picture_{modality.name.replace('-', '_')}"


def brush_label(class_name: str) -> str:
    """What a class is called in the brush tool: Label Studio distinguishes labels by their text."""
    return f"{class_name} brush"


def anchor_picture(campaign: Campaign) -> str:
    """Name of the picture that people draw on."""
    return picture_name(shown_modalities(campaign)[0])


def nothing_there(class_names: Sequence[str]) -> str:
    """The verdict that a tile was looked at and holds nothing."""
    return f"no {class_names[0]} in tile" if len(class_names) == 1 else "nothing in tile"


def shown_modalities(campaign: Campaign) -> list[Modality]:
    """The modalities that annotators see, the anchor first.

    Raises:
        LabelStudioRefused: There is no anchor, or two would get the same name in Label Studio.
    """
    rows = campaign.campaign_modalities.select_related("modality").order_by("-is_anchor", "position")
    shown = [row.modality for row in rows if row.is_anchor or row.is_shown]
    if not shown or not any(row.is_anchor for row in rows):
        raise LabelStudioRefused(f"Campaign {campaign.name} has no anchor modality: mark the one people draw on.")
    names = [picture_name(modality) for modality in shown]
    for name in names:
        if names.count(name) > 1:
            clash = " and ".join(modality.name for modality in shown if picture_name(modality) == name)
            raise LabelStudioRefused(f"The modalities {clash} are the same name to Label Studio: rename one.")
    return shown


def labeling_config(campaign: Campaign) -> str:
    """The campaign's labeling interface.

    The anchor modality's picture is large and carries the tools, a polygon and a brush label for each class; the
    other shown modalities stand beside it; below are a verdict on the whole tile and a comment. Above all stands what
    was not understood in a submission, if anything.

    Raises:
        LabelStudioRefused: The campaign has no class or no anchor modality.
    """
    anchor, *others = shown_modalities(campaign)
    classes = list(campaign.classes.order_by("name"))
    if not classes:
        raise LabelStudioRefused(f"Campaign {campaign.name} has no landform class: add at least one.")
    to_name = picture_name(anchor)
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Style").text = _STYLE
    ElementTree.SubElement(view, "Header", value=f"${NOTE}", size="4", style="color: #b02a30")
    tools = ElementTree.SubElement(view, "View", className="thawloop-tools")
    polygons = ElementTree.SubElement(
        tools, "PolygonLabels", name=POLYGONS, toName=to_name, strokeWidth="2", opacity="0.25", pointSize="small"
    )
    brush = ElementTree.SubElement(tools, "BrushLabels", name=BRUSH, toName=to_name)
    for landform in classes:
        ElementTree.SubElement(polygons, "Label", value=landform.name, background=landform.color)
        ElementTree.SubElement(brush, "Label", value=brush_label(landform.name), background=landform.color)
    pictures = ElementTree.SubElement(view, "View", className="thawloop-pictures")
    _picture(pictures, anchor, note=" (draw here)")
    side = ElementTree.SubElement(pictures, "View", className="thawloop-side")
    for modality in others:
        _picture(side, modality)
    verdict = ElementTree.SubElement(view, "Choices", name=VERDICT, toName=to_name, choice="single", showInline="true")
    for value in (nothing_there([landform.name for landform in classes]), *NO_STATEMENT):
        ElementTree.SubElement(verdict, "Choice", value=value)
    ElementTree.SubElement(view, "TextArea", name=COMMENT, toName=to_name, rows="1", placeholder="comment")
    return ElementTree.tostring(view, encoding="unicode")


def _picture(parent: ElementTree.Element, modality: Modality, note: str = "") -> None:
    box = ElementTree.SubElement(parent, "View")
    ElementTree.SubElement(box, "Header", value=f"{modality.title}{note}", size="5")
    name = picture_name(modality)
    image = {"name": name, "value": f"${name}", "zoom": "true"}
    if note:
        image |= {"zoomControl": "true", "brightnessControl": "true", "contrastControl": "true"}
    ElementTree.SubElement(box, "Image", image)
