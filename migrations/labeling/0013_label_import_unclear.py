"""Where a label file lost a feature, its coverage makes no statement."""

import django.contrib.gis.db.models.fields
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("labeling", "0012_project_identity")]

    operations = [
        migrations.AddField(
            "labelimport",
            "unclear",
            django.contrib.gis.db.models.fields.MultiPolygonField(
                blank=True,
                help_text="Where features of the file could not be used: tiles there are not labelled by it.",
                null=True,
                srid=4326,
            ),
        ),
    ]
