#!/bin/bash
# Run once by the image, when the volume is empty: Label Studio gets a role and a database of its own.
set -euo pipefail
psql --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set=password="$LABEL_STUDIO_DB_PASSWORD" <<'SQL'
CREATE ROLE labelstudio LOGIN PASSWORD :'password';
CREATE DATABASE labelstudio OWNER labelstudio TEMPLATE template0;
REVOKE CONNECT ON DATABASE labelstudio FROM PUBLIC;
SQL
