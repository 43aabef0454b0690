#!/usr/bin/env bash
# Runs both commands of the README in a fresh Debian of the named release, on a clone of this checkout's last commit.
# All mounts and processes are in namespaces of their own: however this ends, none of them is left behind.
set -euo pipefail

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

usage() {
  cat <<'TEXT'
usage: launch/try_distribution.sh [options] bookworm|trixie
  --mirror URL   where Debian's packages are (default: as this machine's apt, else http://deb.debian.org/debian)
  --keep         do not delete the system afterwards
As root, with debootstrap; the logs stay in a folder that is named. TMPDIR: where that and the system lie (5 GB).
TEXT
}

refuse() {
  echo "try_distribution.sh: $1" >&2
  exit "${2:-1}"
}

# Proxies reach the new system as they are here, in apt's settings and in the environment.
settings_of_apt() { apt-config dump | grep -E '^Acquire::(https?::Proxy|Check-(Date|Valid-Until))' || true; }

run_in_system() {
  local proxies
  mapfile -t proxies < <(env | grep -iE '^(https?|no)_proxy=')
  env -i HOME=/root TERM=dumb LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "${proxies[@]}" \
    chroot "$system" bash -c "$1"
}

# try NAME COMMAND: runs it in the clone, says what came of it, leaves NAME.log.
try() {
  local log=$logs/$1.log start=$SECONDS code=0 took
  run_in_system "cd /root/teskd && $2" >"$log" 2>&1 || code=$?
  took=$(awk -v seconds=$((SECONDS - start)) 'BEGIN { printf "%.1f min", seconds / 60 }')
  if [ "$code" -eq 0 ]; then
    echo "$2: passed, $took"
    grep -E '^[0-9]+% tests passed|^(top-1|teacher)' "$log" || true
  else
    echo "$2: FAILED with exit code $code, $took; the end of $log:"
    tail -n 15 "$log" | sed 's/^/  | /'
    failed=1
  fi
}

# The first process of the namespaces: when it ends, all that it started is killed and unmounted.
inside() {
  local failed=0
  debootstrap --variant=minbase --keyring="$keyring" "$suite" "$system" "$mirror" >"$logs/debootstrap.log" 2>&1 ||
    refuse "debootstrap failed: $(tail -n 1 "$logs/debootstrap.log") ($logs/debootstrap.log)"
  settings_of_apt >"$system/etc/apt/apt.conf.d/90try_distribution"
  # As Debian's installer does: without it each start of MPI waits for a name service.
  printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$(hostname)" >"$system/etc/hosts"
  mount -t proc proc "$system/proc"
  mount --rbind /sys "$system/sys"
  mount --rbind /dev "$system/dev"
  mount -t tmpfs tmpfs "$system/dev/shm"
  git clone -q --no-hardlinks "$checkout" "$system/root/teskd"
  try quickstart launch/quickstart.sh
  try test launch/test.sh
  # shellcheck disable=SC2016 # dpkg-query's own fields
  run_in_system 'dpkg-query -W -f "\${Package} \${Version}\n" cmake gcc libdnnl-dev libhdf5-dev libopenmpi-dev python3' \
    >"$logs/versions.log" 2>&1 || true
  echo "with $(paste -sd ',' "$logs/versions.log" | sed 's/,/, /g')"
  exit "$failed"
}

if [ "${1:-}" = --inside ]; then
  suite=$2 mirror=$3 system=$4 logs=$5 checkout=$6
  inside
fi

suite=''
mirror=''
keep=no
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --keep) keep=yes ;;
    --mirror)
      [ $# -ge 2 ] || refuse "--mirror wants a URL" 2
      mirror=$2
      shift
      ;;
    bookworm | trixie) suite=$1 ;;
    *) usage >&2; refuse "unknown option or release $1" 2 ;;
  esac
  shift
done
[ -n "$suite" ] || { usage >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || refuse "only root can make another system's folder and run in it"
for program in debootstrap git unshare; do
  command -v "$program" >/dev/null || refuse "$program is not installed"
done
[ -f "$keyring" ] || refuse "$keyring is missing: install debian-archive-keyring"
unshare --mount --pid --fork --kill-child true || refuse "no namespaces of its own here (a container without CAP_SYS_ADMIN?)"

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
commit=$(git -C "$checkout" log -1 --format='%h "%s"')
if [ -z "$mirror" ]; then
  # shellcheck disable=SC2016 # apt's own field
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sort -u |
    head -n 1) || true
  mirror=${mirror:-http://deb.debian.org/debian}
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/teskd-$suite.XXXXXX")
logs=$work/logs
system=$work/system
mkdir "$logs"

# Nothing of the system is mounted out here, so what is deleted is its files alone.
finish() {
  local code=$?
  trap '' HUP INT TERM
  if [ -n "${runner:-}" ] && kill -KILL "$runner" 2>/dev/null; then
    wait "$runner" 2>/dev/null || true
    sleep 1 # for what dies with it
  fi
  if [ "$keep" = yes ]; then
    echo "the system: $system"
  else
    rm -rf --one-file-system "$system"
  fi
  echo "logs: $logs"
  exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

echo "$suite from $mirror, commit $commit; logs in $logs"
set -m # a job of its own: SIGINT is not ignored in it, which the tests would inherit
unshare --mount --pid --fork --kill-child bash "${BASH_SOURCE[0]}" --inside "$suite" "$mirror" "$system" "$logs" "$checkout" </dev/null &
runner=$!
wait "$runner"
