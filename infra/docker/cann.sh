#!/bin/bash
# CANN's settings, read by every bash of the Ascend image that isn't interactive (BASH_ENV): that of the
# entry point, and that of KubeRay, which passes the entry point by. Releases keep them in one place
# or the other.
for file in /usr/local/Ascend/cann/set_env.sh /usr/local/Ascend/ascend-toolkit/set_env.sh; do
  if [ -r "$file" ]; then
    # shellcheck source=/dev/null
    . "$file"
    break
  fi
done
