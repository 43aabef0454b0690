#!/usr/bin/env bash
# From a fresh checkout to a trained, evaluated and exported network on this machine's CPU: synthetic images, as JPEG files
# in class folders, take the way of ImageNet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=${TESKD_WORK:-$PWD/quickstart}
ranks=${TESKD_RANKS:-2}
build=$PWD/build
images=$work/images
shards=$work/shards
output=$work/run

if [ $# -ne 0 ]; then
  cat <<'TEXT'
usage: launch/quickstart.sh
  TESKD_WORK    folder for the data and the results (default: quickstart in the source tree)
  TESKD_RANKS   number of processes to train with (default: 2)
TEXT
  case $1 in --help | -h) exit 0 ;; *) exit 2 ;; esac
fi

cat <<TEXT
This will
  1. install missing Debian packages (apt-get, as root or with sudo; skipped when all are there)
  2. build teskd in $build
  3. write a small image set, JPEG files in class folders, to $images
  4. pack it into shards in $shards, and check them
  5. train on them with $ranks processes, results in $output (in place of an earlier quick start's)
  6. evaluate the best network of the run, and export it as an ONNX file
TEXT

step() { printf '\n== %s\n' "$*"; }

step "Packages"
bash launch/packages.sh --install

# Kernels for all GPUs take longer to compile than all the rest: here, for those of this machine or none.
# Prints what CMake is told; a build folder that is there keeps what was chosen for it. Turing (75) is the oldest.
kernel_options() {
  local found
  [ ! -e "$build/CMakeCache.txt" ] || return 0
  found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d '. ' | awk '!/^[0-9]+$/ || $1 >= 75' | sort -nu) || found=
  if [[ $found =~ ^[0-9]+($'\n'[0-9]+)*$ ]]; then
    echo "-DCMAKE_CUDA_ARCHITECTURES=$(sed 's/$/-real/' <<<"$found" | paste -sd ';')"
  else
    echo -DTESKD_CUDA=OFF
  fi
}

step "Build"
kernels=$(kernel_options)
case $kernels in
  *OFF) choice="for no GPU, as this machine has none that is known" ;;
  *=*) choice="for the GPU of this machine (${kernels#*=})" ;;
  *) choice="as $build was configured before" ;;
esac
echo "Kernels are built $choice; for every GPU:"
echo "  cmake -S . -B build -DTESKD_CUDA=AUTO -DCMAKE_CUDA_ARCHITECTURES= && cmake --build build"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DTESKD_TESTS=OFF ${kernels:+"$kernels"}
cmake --build build

step "Images"
mkdir -p "$work"
build/teskd data synth --folders --out "$images"

step "Shards"
build/teskd data pack --from "$images" --out "$shards" --shard-mib 4 --overwrite
build/teskd data check "$shards"

step "Train"
mpirun_options=(-np "$ranks" --bind-to none --oversubscribe)
if [ "$(id -u)" -eq 0 ]; then
  # Open MPI refuses root unless told twice; a container often has no other user.
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
mpirun "${mpirun_options[@]}" build/teskd --config configs/quickstart.ini \
  --set data.path="$shards" --set output.dir="$output" --overwrite

step "Evaluate"
build/teskd eval --checkpoint "$output/best.h5"

step "Export"
build/teskd export --checkpoint "$output/best.h5" --format onnx --out "$output/teacher.onnx"

cat <<TEXT

Done.
  program      $build/teskd
  images       $images, packed in $shards
  checkpoints  $output/best.h5, $output/last.h5
  network      $output/teacher.onnx
  settings     configs/quickstart.ini (another run: --set section.key=value; all settings: build/teskd train --help)
TEXT
