#!/usr/bin/env bash
# The Debian and Ubuntu packages that the program needs: prints the list, or installs what is missing.
set -euo pipefail

# libonnx-dev: for its onnx.proto, the schema of ONNX files; nothing of it is linked.
# ocl-icd-opencl-dev: Debian's oneDNN is built with OpenCL, and its CMake file insists on finding it.
build_packages=(cmake ninja-build gcc libc6-dev pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libdnnl-dev
  ocl-icd-opencl-dev libopenblas-dev libinih-dev libxxhash-dev libhwloc-dev libjpeg-dev
  libpng-dev libarchive-dev libjson-c-dev libprotobuf-c-dev protobuf-c-compiler libonnx-dev)
test_packages=(g++ xz-utils libcmocka-dev python3 python3-numpy python3-h5py python3-onnx
  python3-pil iproute2)
# For the test of launch/slurm, which starts daemons of its own; not where there is a Slurm already.
slurm_daemons=(munge slurmctld slurmd)
fuzz_packages=(clang llvm libclang-rt-dev libomp-dev)

usage() {
  cat <<'TEXT'
usage: launch/packages.sh [--tests] [--fuzz] [--install]
  --tests     also what the tests need
  --fuzz      also what launch/fuzz.sh needs
  --install   install the missing ones with apt-get (as root, or with sudo); without it, print the list
TEXT
}

packages=("${build_packages[@]}")
install=no
for argument in "$@"; do
  case $argument in
    --tests)
      packages+=("${test_packages[@]}")
      command -v sbatch >/dev/null || packages+=(slurm-client "${slurm_daemons[@]}")
      ;;
    --fuzz) packages+=("${fuzz_packages[@]}") ;;
    --install) install=yes ;;
    --help | -h) usage; exit 0 ;;
    *) echo "packages.sh: unknown option $argument" >&2; usage >&2; exit 2 ;;
  esac
done

if [ "$install" = no ]; then
  printf '%s\n' "${packages[@]}"
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "packages.sh: no apt-get here; install what provides: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "packages: all ${#packages[@]} are installed"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "packages.sh: not root and no sudo; ask for these to be installed: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "packages: installing ${missing[*]}"
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"

# The packages' own daemons do not stay.
for daemon in "${slurm_daemons[@]}"; do
  if [[ " ${missing[*]} " == *" $daemon "* ]] && command -v systemctl >/dev/null; then
    "${as_root[@]}" systemctl disable "$daemon"
    [ ! -d /run/systemd/system ] || "${as_root[@]}" systemctl stop "$daemon"
  fi
done
