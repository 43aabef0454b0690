#!/usr/bin/env bash
# Installs clang, builds the fuzzers of tests/fuzz with the address and undefined-behaviour sanitizers, and runs them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: launch/fuzz.sh [options] [checkpoint|image|reference|safetensors|settings|shard|tar ...]
  --seconds N   time for each of them (default: 600)
Without a name, all, one after another. Inputs that reach new code are kept in build-fuzz/corpus/NAME; one that ends the
program is left in build-fuzz/found/NAME-*, and the exit code is 1.
TEXT
}

seconds=600
names=()
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --seconds)
      [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || { echo "fuzz.sh: --seconds wants a number" >&2; exit 2; }
      seconds=$2
      shift
      ;;
    checkpoint | image | reference | safetensors | settings | shard | tar) names+=("$1") ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[ ${#names[@]} -gt 0 ] || names=(checkpoint image reference safetensors settings shard tar)

bash launch/packages.sh --tests --fuzz --install
CC=clang CXX=clang++ cmake -S . -B build-fuzz -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTESKD_FUZZ=ON \
  -DTESKD_SANITIZE=address,undefined -DTESKD_CUDA=OFF
cmake --build build-fuzz --target "${names[@]/#/fuzz_}"

# HDF5 itself crashes on some references: the child process that tries a file first then ends by a signal, as without
# the sanitizers, and its report is in the log.
export ASAN_OPTIONS=abort_on_error=1 LSAN_OPTIONS=suppressions=tests/fuzz/lsan.supp:print_suppressions=0
# Its thousands of reports need no line numbers, which take seconds each.
failed=0
mkdir -p build-fuzz/found
for name in "${names[@]}"; do
  corpus=build-fuzz/corpus/$name
  mkdir -p "$corpus"
  printf '\n== %s, %d s\n' "$name" "$seconds"
  symbolize=1
  [ "$name" = reference ] && symbolize=0
  ASAN_OPTIONS=$ASAN_OPTIONS:symbolize=$symbolize build-fuzz/tests/fuzz/fuzz_"$name" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix=build-fuzz/found/"$name"- "$corpus" tests/fuzz/corpus/"$name" >build-fuzz/"$name".log 2>&1 || failed=1
  grep -E '^stat::(number_of_executed|peak_rss)|SUMMARY' build-fuzz/"$name".log || true
done
exit "$failed"
