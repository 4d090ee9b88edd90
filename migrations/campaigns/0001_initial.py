"""Campaigns, moved here from `labeling`: the tables are there and stay as they are."""

import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from migrations.moves import rename_references


class Migration(migrations.Migration):

    dependencies = [
        ('labeling', '0014_tables_of_campaigns'),
        ('contenttypes', '0002_remove_content_type_name'),
        ('core', '0005_tokens_and_failed_logins'),
        ("catalog", "0005_map_from_afar"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[
            migrations.CreateModel(
                name="LandformClass",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True,
                            primary_key=True,
                            serialize=False,
                            verbose_name="ID",
                        ),
                    ),
                    (
                        "name",
                        models.CharField(
                            max_length=50,
                            unique=True,
                            validators=[
                                django.core.validators.RegexValidator(
                                    "^[A-Za-z0-9][A-Za-z0-9 _-]*$"
                                )
                            ],
                        ),
                    ),
                    ("title", models.CharField(blank=True, max_length=100)),
                    (
                        "color",
                        models.CharField(
                            default="#e6194b",
                            max_length=7,
                            validators=[
                                django.core.validators.RegexValidator("^#[0-9a-fA-F]{6}$")
                            ],
                        ),
                    ),
                    ("description", models.TextField(blank=True)),
                ],
                options={
                    "verbose_name_plural": "landform classes",
                    "ordering": ["name"],
                },
            ),
            migrations.CreateModel(
                name="Campaign",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True,
                            primary_key=True,
                            serialize=False,
                            verbose_name="ID",
                        ),
                    ),
                    (
                        "name",
                        models.CharField(
                            max_length=50,
                            unique=True,
                            validators=[
                                django.core.validators.RegexValidator(
                                    "^[a-z0-9][a-z0-9_-]*$",
                                    "Use lower-case letters, digits, `_` and `-` only.",
                                )
                            ],
                        ),
                    ),
                    ("title", models.CharField(max_length=150)),
                    (
                        "state",
                        models.CharField(
                            choices=[
                                ("active", "Active"),
                                ("paused", "Paused"),
                                ("closed", "Closed"),
                            ],
                            default="active",
                            max_length=10,
                        ),
                    ),
                    (
                        "period",
                        models.CharField(
                            max_length=20,
                            validators=[
                                django.core.validators.RegexValidator(
                                    "^[a-z0-9][a-z0-9_-]*$",
                                    "Use lower-case letters, digits, `_` and `-` only.",
                                )
                            ],
                        ),
                    ),
                    ("period_start", models.DateField()),
                    ("period_end", models.DateField()),
                    (
                        "acquisition",
                        models.JSONField(
                            blank=True,
                            default=dict,
                            help_text="Acquisition settings: see thawloop.campaigns.settings.AcquisitionSettings.",
                        ),
                    ),
                    (
                        "detector",
                        models.JSONField(
                            blank=True,
                            default=dict,
                            help_text="Model settings: see thawloop.campaigns.settings.DetectorSettings.",
                        ),
                    ),
                    (
                        "score_threshold",
                        models.FloatField(
                            default=0.3,
                            help_text="Instances below it are not shown to annotators.",
                        ),
                    ),
                    (
                        "split_buffer",
                        models.FloatField(
                            default=0,
                            help_text="Metres that tiles of two splits must lie apart in a release, or the lower one is left out.",
                        ),
                    ),
                    (
                        "licence",
                        models.CharField(
                            blank=True,
                            help_text="Of the labels, as SPDX names it, e.g. CC-BY-4.0; goes into releases.",
                            max_length=100,
                        ),
                    ),
                    (
                        "citation",
                        models.TextField(
                            blank=True, help_text="How users of a release should cite it."
                        ),
                    ),
                    (
                        "ls_project_id",
                        models.PositiveIntegerField(blank=True, null=True, unique=True),
                    ),
                    (
                        "ls_mark",
                        models.CharField(
                            blank=True,
                            help_text="What its project's description must hold, or it is another project.",
                            max_length=60,
                        ),
                    ),
                    (
                        "ls_generation",
                        models.PositiveIntegerField(
                            default=0,
                            help_text="How many projects it had before this one: numbers in Label Studio belong to one of them.",
                        ),
                    ),
                    (
                        "ls_stopped",
                        models.TextField(
                            blank=True,
                            help_text="Why the exchange with Label Studio stopped and what a lead can do; empty: it goes on.",
                        ),
                    ),
                    (
                        "ls_removals",
                        models.PositiveIntegerField(
                            blank=True,
                            help_text="How many removals wait for a lead to accept them.",
                            null=True,
                        ),
                    ),
                    ("ls_view_id", models.PositiveIntegerField(blank=True, null=True)),
                    ("ls_webhook_id", models.PositiveIntegerField(blank=True, null=True)),
                    (
                        "ls_ml_backend_id",
                        models.PositiveIntegerField(blank=True, null=True),
                    ),
                    (
                        "ls_connections",
                        models.CharField(
                            blank=True,
                            help_text="Digest of the addresses and secrets that its project was last told.",
                            max_length=32,
                        ),
                    ),
                    (
                        "ls_shown",
                        models.CharField(
                            blank=True,
                            help_text="Name of the predictions that Label Studio shows: see Preannotation.",
                            max_length=100,
                        ),
                    ),
                    (
                        "ls_synced_until",
                        models.DateTimeField(
                            blank=True,
                            help_text="Label Studio's changes up to here are known.",
                            null=True,
                        ),
                    ),
                    ("created", models.DateTimeField(auto_now_add=True)),
                    (
                        "created_by",
                        models.ForeignKey(
                            blank=True,
                            null=True,
                            on_delete=django.db.models.deletion.SET_NULL,
                            to=settings.AUTH_USER_MODEL,
                        ),
                    ),
                    (
                        "grid",
                        models.ForeignKey(
                            on_delete=django.db.models.deletion.PROTECT,
                            related_name="campaigns",
                            to="catalog.tilegrid",
                        ),
                    ),
                ],
                options={
                    "ordering": ["name"],
                    "permissions": [
                        (
                            "sync_campaign",
                            "Can exchange tasks and annotations with Label Studio",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="CampaignModality",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True,
                            primary_key=True,
                            serialize=False,
                            verbose_name="ID",
                        ),
                    ),
                    ("position", models.PositiveSmallIntegerField()),
                    ("is_anchor", models.BooleanField(default=False)),
                    (
                        "is_shown",
                        models.BooleanField(default=True, help_text="Shown to annotators."),
                    ),
                    (
                        "is_model_input",
                        models.BooleanField(
                            default=True, help_text="Given to the detector."
                        ),
                    ),
                    (
                        "campaign",
                        models.ForeignKey(
                            on_delete=django.db.models.deletion.CASCADE,
                            related_name="campaign_modalities",
                            to="campaigns.campaign",
                        ),
                    ),
                    (
                        "modality",
                        models.ForeignKey(
                            on_delete=django.db.models.deletion.PROTECT,
                            to="catalog.modality",
                        ),
                    ),
                ],
                options={
                    "verbose_name_plural": "campaign modalities",
                    "ordering": ["position"],
                },
            ),
            migrations.AddField(
                model_name="campaign",
                name="modalities",
                field=models.ManyToManyField(
                    related_name="campaigns",
                    through="campaigns.CampaignModality",
                    to="catalog.modality",
                ),
            ),
            migrations.CreateModel(
                name="CampaignRegion",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True,
                            primary_key=True,
                            serialize=False,
                            verbose_name="ID",
                        ),
                    ),
                    (
                        "split",
                        models.CharField(
                            choices=[("train", "Train"), ("val", "Val"), ("test", "Test")],
                            default="train",
                            max_length=5,
                        ),
                    ),
                    (
                        "campaign",
                        models.ForeignKey(
                            on_delete=django.db.models.deletion.CASCADE,
                            related_name="campaign_regions",
                            to="campaigns.campaign",
                        ),
                    ),
                    (
                        "region",
                        models.ForeignKey(
                            on_delete=django.db.models.deletion.PROTECT, to="catalog.region"
                        ),
                    ),
                ],
            ),
            migrations.AddField(
                model_name="campaign",
                name="regions",
                field=models.ManyToManyField(
                    related_name="campaigns",
                    through="campaigns.CampaignRegion",
                    to="catalog.region",
                ),
            ),
            migrations.AddField(
                model_name="campaign",
                name="classes",
                field=models.ManyToManyField(
                    related_name="campaigns", to="campaigns.landformclass"
                ),
            ),
            migrations.AddConstraint(
                model_name="campaignmodality",
                constraint=models.UniqueConstraint(
                    fields=("campaign", "modality"), name="campaign_modality_once"
                ),
            ),
            migrations.AddConstraint(
                model_name="campaignmodality",
                constraint=models.UniqueConstraint(
                    condition=models.Q(("is_anchor", True)),
                    fields=("campaign",),
                    name="campaign_one_anchor",
                ),
            ),
            migrations.AddConstraint(
                model_name="campaignregion",
                constraint=models.UniqueConstraint(
                    fields=("campaign", "region"), name="campaign_region_once"
                ),
            ),
            migrations.AddConstraint(
                model_name="campaignregion",
                constraint=models.CheckConstraint(
                    condition=models.Q(("split__in", ["train", "val", "test"])),
                    name="campaign_region_split_known",
                ),
            ),
            migrations.AddConstraint(
                model_name="campaign",
                constraint=models.CheckConstraint(
                    condition=models.Q(("state__in", ["active", "paused", "closed"])),
                    name="campaign_state_known",
                ),
            ),
            migrations.AddConstraint(
                model_name="campaign",
                constraint=models.CheckConstraint(
                    condition=models.Q(
                        ("score_threshold__gte", 0), ("score_threshold__lte", 1)
                    ),
                    name="campaign_score_threshold_is_fraction",
                ),
            ),
            migrations.AddConstraint(
                model_name="campaign",
                constraint=models.CheckConstraint(
                    condition=models.Q(("split_buffer__gte", 0)),
                    name="campaign_split_buffer_is_a_distance",
                ),
            ),
            migrations.AddConstraint(
                model_name="campaign",
                constraint=models.CheckConstraint(
                    condition=models.Q(("period_start__lte", models.F("period_end"))),
                    name="campaign_period_ordered",
                ),
            ),
        ]),
        rename_references("labeling", "campaigns", ("landformclass", "campaign", "campaignmodality", "campaignregion")),
    ]
