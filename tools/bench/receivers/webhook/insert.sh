#!/bin/sh
# What Debian's webhook starts for each request: keeps the body, durably. WAL is set at creation.
set -eu
body=$(printf %s "$2" | sed "s/'/''/g")
exec sqlite3 "$1" ".timeout 30000" "PRAGMA synchronous = FULL" \
    "INSERT INTO callbacks (received_at, body) VALUES (unixepoch(), '$body')"
