"""Models, moved here from `training`: the tables are there and stay as they are."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from migrations.moves import rename_references


class Migration(migrations.Migration):

    dependencies = [
        ('contenttypes', '0002_remove_content_type_name'),
        ('core', '0005_tokens_and_failed_logins'),
        ("campaigns", "0001_initial"),
        ("releases", "0004_campaigns_moved"),
        ("training", "0005_tables_of_registry"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[
            migrations.CreateModel(
                name="ModelVersion",
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
                            help_text="`<campaign>-v<number>`; what Label Studio shows.",
                            max_length=80,
                            unique=True,
                        ),
                    ),
                    ("number", models.PositiveIntegerField()),
                    (
                        "path",
                        models.CharField(
                            help_text="Artifact name of the checkpoint directory.",
                            max_length=500,
                        ),
                    ),
                    (
                        "checksum",
                        models.CharField(
                            help_text="SHA-256 of model.safetensors.", max_length=64
                        ),
                    ),
                    (
                        "card",
                        models.JSONField(
                            default=dict,
                            help_text="model.json: config, classes, modalities, dataset, code version.",
                        ),
                    ),
                    ("created", models.DateTimeField(auto_now_add=True)),
                    (
                        "campaign",
                        models.ForeignKey(
                            on_delete=django.db.models.deletion.PROTECT,
                            related_name="model_versions",
                            to="campaigns.campaign",
                        ),
                    ),
                    (
                        "parent",
                        models.ForeignKey(
                            blank=True,
                            help_text="What it was warm-started from.",
                            null=True,
                            on_delete=django.db.models.deletion.PROTECT,
                            related_name="children",
                            to="registry.modelversion",
                        ),
                    ),
                    (
                        "release",
                        models.ForeignKey(
                            blank=True,
                            help_text="What it was trained on.",
                            null=True,
                            on_delete=django.db.models.deletion.PROTECT,
                            related_name="model_versions",
                            to="releases.release",
                        ),
                    ),
                    (
                        "retraining",
                        models.OneToOneField(
                            blank=True,
                            null=True,
                            on_delete=django.db.models.deletion.PROTECT,
                            related_name="model_version",
                            to="training.retraining",
                        ),
                    ),
                ],
                options={
                    "ordering": ["-id"],
                    "permissions": [
                        ("promote_modelversion", "Can promote and roll back models")
                    ],
                },
            ),
            migrations.CreateModel(
                name="ModelAlias",
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
                        "alias",
                        models.CharField(
                            choices=[
                                ("champion", "Champion"),
                                ("challenger", "Challenger"),
                            ],
                            max_length=10,
                        ),
                    ),
                    (
                        "campaign",
                        models.ForeignKey(
                            on_delete=django.db.models.deletion.CASCADE,
                            related_name="aliases",
                            to="campaigns.campaign",
                        ),
                    ),
                    (
                        "model_version",
                        models.ForeignKey(
                            on_delete=django.db.models.deletion.PROTECT,
                            related_name="aliases",
                            to="registry.modelversion",
                        ),
                    ),
                ],
                options={
                    "verbose_name_plural": "model aliases",
                },
            ),
            migrations.CreateModel(
                name="Promotion",
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
                        "kind",
                        models.CharField(
                            choices=[
                                ("gate", "passed the gate"),
                                ("manual", "promoted by a person"),
                                ("rollback", "rolled back"),
                            ],
                            max_length=10,
                        ),
                    ),
                    ("reason", models.TextField()),
                    ("created", models.DateTimeField(auto_now_add=True)),
                    (
                        "actor",
                        models.ForeignKey(
                            blank=True,
                            null=True,
                            on_delete=django.db.models.deletion.PROTECT,
                            to=settings.AUTH_USER_MODEL,
                        ),
                    ),
                    (
                        "campaign",
                        models.ForeignKey(
                            on_delete=django.db.models.deletion.PROTECT,
                            related_name="promotions",
                            to="campaigns.campaign",
                        ),
                    ),
                    (
                        "champion",
                        models.ForeignKey(
                            on_delete=django.db.models.deletion.PROTECT,
                            related_name="promotions",
                            to="registry.modelversion",
                        ),
                    ),
                    (
                        "previous",
                        models.ForeignKey(
                            blank=True,
                            null=True,
                            on_delete=django.db.models.deletion.PROTECT,
                            related_name="+",
                            to="registry.modelversion",
                        ),
                    ),
                ],
                options={
                    "ordering": ["-id"],
                },
            ),
            migrations.AddConstraint(
                model_name="modelversion",
                constraint=models.UniqueConstraint(
                    fields=("campaign", "number"), name="model_version_number_once"
                ),
            ),
            migrations.AddConstraint(
                model_name="modelalias",
                constraint=models.UniqueConstraint(
                    fields=("campaign", "alias"), name="alias_once"
                ),
            ),
            migrations.AddConstraint(
                model_name="modelalias",
                constraint=models.CheckConstraint(
                    condition=models.Q(("alias__in", ["champion", "challenger"])),
                    name="alias_known",
                ),
            ),
            migrations.AddConstraint(
                model_name="promotion",
                constraint=models.CheckConstraint(
                    condition=models.Q(("kind__in", ["gate", "manual", "rollback"])),
                    name="promotion_kind_known",
                ),
            ),
        ]),
        rename_references("training", "registry", ("modelversion", "modelalias", "promotion")),
    ]
