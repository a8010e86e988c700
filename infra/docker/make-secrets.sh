#!/bin/sh
# Makes the secrets of compose.yaml, once: what is there stays. Files are for their owner only.
set -eu
umask 077
directory=${1:-$(dirname "$0")/secrets}
mkdir -p "$directory"

random() {
  # 32 bytes of the kernel's, as hexadecimal digits: no shell, URL or YAML minds them.
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

if [ -e "$directory/made" ]; then
  echo "$directory has its secrets already"
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
# Last: a run that was interrupted is repeated whole.
: > "$directory/made"
echo "made in $directory"
