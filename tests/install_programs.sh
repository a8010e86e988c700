#!/usr/bin/env bash
# Installs the Debian packages whose programs the tests run, where they are missing; needs root.
# Without them `make test` skips those tests and says why; in CI it fails.
set -euo pipefail

declare -A packages=(
  [strace]=strace [ip]=iproute2 [curl]=curl [chromium]=chromium
  [chromedriver]=chromium-driver
  [systemd-analyze]=systemd [initdb]=postgresql
)
# Where Debian keeps PostgreSQL's.
for directory in /usr/lib/postgresql/*/bin; do PATH=$PATH:$directory; done
missing=()
for program in "${!packages[@]}"; do
  command -v "$program" > /dev/null || missing+=("${packages[$program]}")
done
if ((${#missing[@]})); then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}"
fi
