#!/bin/bash
# CANN's settings. Every non-interactive bash of the Ascend image reads them (BASH_ENV): that of the
# entry point, and that of KubeRay, which bypasses the entry point. The path depends on CANN's release.
for file in /usr/local/Ascend/cann/set_env.sh /usr/local/Ascend/ascend-toolkit/set_env.sh; do
  if [ -r "$file" ]; then
    # shellcheck source=/dev/null
    . "$file"
    break
  fi
done
