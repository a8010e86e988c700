#!/bin/bash
# Sources CANN's set_env.sh, unless this shell or one that started it has. Where CANN isn't
# installed, it does nothing.
#
# For a shell from which you train: . infra/cann.sh
# The systemd units source it before they start their program. In the Ascend image, every
# non-interactive bash does (BASH_ENV): that of the entry point, and that of KubeRay, which bypasses
# the entry point.
#
# SKNET_SET_ENV, the path of a set_env.sh, comes first; then the CANN that ASCEND_HOME_PATH selects;
# then CANN 8.5 and later in the first directory below, and older ones in the second. That
# ASCEND_HOME_PATH is set doesn't say that the rest is: CANN's images preset it.
# The same order is in infra/base/ascend.py.
sknet_home="${ASCEND_HOME_PATH:-${ASCEND_TOOLKIT_HOME:-}}"
if [ -n "${SKNET_SET_ENV:-}" ]; then
  sknet_files=("$SKNET_SET_ENV")
elif [ -n "$sknet_home" ]; then
  sknet_files=("$sknet_home/set_env.sh" "${sknet_home%/*}/set_env.sh")
else
  sknet_files=("/usr/local/Ascend/cann/set_env.sh" "/usr/local/Ascend/ascend-toolkit/set_env.sh")
fi
for sknet_file in "${sknet_files[@]}"; do
  if [ -f "$sknet_file" ] && [ -r "$sknet_file" ]; then
    # Not by name: set_env.sh replaces a link in ASCEND_HOME_PATH by the directory of the version.
    if ! [ "$sknet_file" -ef "${SKNET_CANN_SOURCED:-}" ]; then
      # shellcheck source=/dev/null
      . "$sknet_file"
      export SKNET_CANN_SOURCED="$sknet_file"
    fi
    break
  fi
  if [ -n "${SKNET_SET_ENV:-}" ]; then
    echo "SKNET_SET_ENV: $sknet_file can't be read" >&2
  fi
done
unset sknet_home sknet_files sknet_file
