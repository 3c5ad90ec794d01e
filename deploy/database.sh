#!/bin/sh
# Runs once, when the database's volume is new: the role and the database of the service.
set -eu
psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --set password="$(cat /run/secrets/database_password)" <<'END'
CREATE ROLE documents LOGIN PASSWORD :'password';
CREATE DATABASE documents OWNER documents ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE documents, postgres FROM PUBLIC;
END
