#!/bin/bash
# Sources CANN's set_env.sh, unless this shell has. Where CANN isn't installed, it does nothing.
#
# For a shell from which you train: . infra/cann.sh
# The systemd units source it before they start their program. In the Ascend image, every
# non-interactive bash does (BASH_ENV): that of the entry point, and that of KubeRay, which bypasses
# the entry point.
#
# CANN 8.5 and later is in the first of these directories, older ones in the second. If yours is
# elsewhere, set SKNET_SET_ENV to the path of its set_env.sh.
if [ -z "${ASCEND_HOME_PATH:-}" ]; then
  for sknet_file in "${SKNET_SET_ENV:-/usr/local/Ascend/cann/set_env.sh}" \
    /usr/local/Ascend/ascend-toolkit/set_env.sh; do
    if [ -r "$sknet_file" ]; then
      # shellcheck source=/dev/null
      . "$sknet_file"
      break
    fi
    if [ -n "${SKNET_SET_ENV:-}" ]; then
      echo "SKNET_SET_ENV: $sknet_file can't be read" >&2
      break
    fi
  done
  unset sknet_file
fi
