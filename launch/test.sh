#!/usr/bin/env bash
# Installs what the tests need, builds with warnings as errors and runs all tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: launch/test.sh [options]
  --sanitizers   also an address and undefined-behaviour build
  --all-gpus     compile the kernels for every GPU from Turing on; without it, for Hopper (sm_90) alone
TEXT
}

sanitizers=no
gpus=90-real
for argument in "$@"; do
  case $argument in
    --sanitizers) sanitizers=yes ;;
    --all-gpus) gpus= ;;
    *)
      usage >&2
      case $argument in --help | -h) exit 0 ;; *) exit 2 ;; esac
      ;;
  esac
done

echo "This will install missing Debian packages (apt-get, as root or with sudo), build in build-test, and run the tests."
[ "$sanitizers" = no ] || echo "Then the same in build-asan with the address and undefined-behaviour sanitizers."

# The tests start small MPI jobs, as root in a container and with more ranks than there are cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none # Open MPI 4
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none # and 5
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

# Two places per core: most tests wait half of their time, and those that do not take two (tests/CMakeLists.txt).
# build_and_test FOLDER CMAKE_OPTION...
build_and_test() {
  local folder=$1
  shift
  printf '\n== %s\n' "$folder"
  cmake -S . -B "$folder" -G Ninja -DTESKD_TESTS=ON -DTESKD_WERROR=ON "$@"
  cmake --build "$folder"
  ctest --test-dir "$folder" --output-on-failure --no-tests=error -j $((2 * $(nproc)))
}

bash launch/packages.sh --tests --install
build_and_test build-test -DCMAKE_CUDA_ARCHITECTURES="$gpus"
if [ "$sanitizers" = yes ]; then
  # Sanitizers look at the host's code: the kernels are those that were just built, where there are any.
  kernels=$PWD/build-test/kernels/cuda/libteskd_cuda_kernels.a
  [ -f "$kernels" ] || kernels=
  build_and_test build-asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTESKD_SANITIZE=address,undefined \
    -DTESKD_CUDA_KERNELS="$kernels"
fi
