#!/bin/sh
# Generate the secrets of compose.yaml, unless they exist. Only the owner can read the files.
set -eu
umask 077
directory=${1:-$(dirname "$0")/secrets}
mkdir -p "$directory"

random() {
  # 32 random bytes as hexadecimal digits, which need no quoting in shells, URLs and YAML.
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

if [ -e "$directory/made" ]; then
  echo "$directory already contains the secrets"
  exit 0
fi
database=$(random)
login="sknet:$(random)"
access=$(random | cut -c1-20)
secret=$(random)
printf 'POSTGRES_PASSWORD=%s\n' "$database" > "$directory/postgres.env"
printf 'PREFECT_SERVER_DATABASE_PASSWORD=%s\nPREFECT_SERVER_API_AUTH_STRING=%s\n' \
  "$database" "$login" > "$directory/server.env"
printf 'PREFECT_API_AUTH_STRING=%s\n' "$login" > "$directory/client.env"
printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' "$access" "$secret" > "$directory/s3.env"
# Written last, so that an interrupted run is repeated from the start.
: > "$directory/made"
echo "made in $directory"
