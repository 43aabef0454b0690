#!/usr/bin/env bash
# Runs a command with the programs of a bundle, wherever it lies and from any folder; launch/bundle.sh puts this into it as
# run.sh. What the bundle has of that name comes first:
#   run.sh teskd info          run.sh mpirun -np 2 teskd --config ...          run.sh launch/gpu_check.sh
set -euo pipefail
root=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
if [ $# -eq 0 ]; then
  echo "usage: run.sh COMMAND ...   with $(ls -m "$root/bin"), or any other" >&2
  exit 2
fi
export TESKD_BUNDLE=$root PATH=$root/bin:$root:$PATH
export OPAL_PREFIX=$root OPAL_SYSCONFDIR=$root/etc/openmpi
export PMIX_LIBDIR=$root/pmix/lib PMIX_DATAROOTDIR=$root/pmix/share
if ! command -v ssh >/dev/null && ! command -v rsh >/dev/null; then
  export OMPI_MCA_plm=${OMPI_MCA_plm:-isolated} # else mpirun refuses to start, on one machine too
fi
nvidia=$("$root/launch/nvidia_libraries.sh")
if [ -n "$nvidia" ]; then
  export LD_LIBRARY_PATH=$nvidia${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
case $1 in
  /* | ./* | ../*) ;;
  */*) [ ! -x "$root/$1" ] || set -- "$root/$1" "${@:2}" ;;
esac
exec "$@"
