"""What makes the weights of one model usable as the start of another, read from campaigns and from model cards."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

from contracts.checkpoint import Card, network_version
from contracts.network import NETWORK_VERSION
from thawloop.campaigns.models import Campaign
from thawloop.campaigns.settings import BEST, DetectorSettings
from thawloop.registry.errors import ModelRefused
from thawloop.releases.definition import define_shape


@dataclass(frozen=True)
class Architecture:
    """Shape of a model.

    Attributes:
        size: `nano`, `tiny`.
        fusion: How modalities are joined; empty with one modality, where it means nothing.
        anchor: The modality that the others are added to.
        modalities: Name and bands of each, in input order.
        classes: Class names, in the order of the labels.
        version: Of what such a description means as a network.
        choose: Whether the anchor may turn out to be another, by measurement.
    """

    size: str
    fusion: str
    anchor: str
    modalities: tuple[tuple[str, tuple[str, ...]], ...]
    classes: tuple[str, ...]
    version: int = NETWORK_VERSION
    choose: bool = field(default=False, compare=False)

    @classmethod
    def wanted(cls, campaign: Campaign, definition: dict[str, Any] | None = None) -> Self:
        """What a campaign's settings ask for, on the dataset that a release defines.

        Args:
            campaign: Whose model settings and model inputs.
            definition: `Release.definition`; what a release frozen now would have if not given.

        Raises:
            ModelRefused: the campaign gives the model no modality.
            SettingsError: its model settings make no sense.
        """
        settings = DetectorSettings.from_json(campaign.detector)
        dataset = definition or define_shape(campaign)
        inputs = set(campaign.campaign_modalities.filter(is_model_input=True).values_list("modality__name", flat=True))
        used = [entry for entry in dataset["modalities"] if entry["name"] in inputs]
        if not used:
            raise ModelRefused(
                f"Campaign `{campaign.name}` gives its model no modality: mark at least one as model input."
            )
        settings.check_anchor([entry["name"] for entry in used])
        drawn_on = next((entry["name"] for entry in used if entry["anchor"]), used[0]["name"])
        choose = settings.anchor == BEST
        return cls(
            size=settings.size,
            fusion=settings.fusion if len(used) > 1 else "",
            anchor=drawn_on if choose else settings.anchor or drawn_on,
            modalities=tuple((entry["name"], tuple(entry["bands"])) for entry in used),
            classes=tuple(dataset["classes"]),
            choose=choose,
        )

    @classmethod
    def of_card(cls, card: Card) -> Self:
        """What a checkpoint is, by its card (`model.json`)."""
        config = card["config"]
        bands = {entry["name"]: tuple(entry["bands"]) for entry in card["modalities"]}
        names = tuple(config["modalities"]) or tuple(bands)
        return cls(
            size=config["size"],
            fusion=config["fusion"] if len(names) > 1 else "",
            anchor=card.get("anchor") or config["anchor"],
            modalities=tuple((name, bands[name]) for name in names),
            classes=tuple(card["classes"]),
            version=network_version(card),
        )

    @property
    def names(self) -> list[str]:
        """Names of the modalities, in input order."""
        return [name for name, _ in self.modalities]

    def settled(self, anchor: str) -> "Architecture":
        """With that anchor, chosen."""
        return replace(self, anchor=anchor, choose=False)

    def alone(self, modality: str) -> "Architecture":
        """The unimodal model whose weights can start this one's branch."""
        bands = dict(self.modalities)[modality]
        return Architecture(self.size, "", modality, ((modality, bands),), self.classes)
