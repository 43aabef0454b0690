#!/usr/bin/env bash
# Makes a folder that runs on a machine without this program's packages: programs, libraries, Open MPI's run-time files,
# recipes, checks, and beside it the same as one archive.
#
# Of the other machine are: the C library (of this machine's version or newer), the NVIDIA driver and NVIDIA's libraries.
# Open MPI comes without its parts for InfiniBand and the like.
set -euo pipefail
source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'TEXT'
usage: launch/bundle.sh [options]
  --out DIR        the folder to make; must not exist (default: build-bundle/teskd)
  --build DIR      an existing build; without it, one is made in build-bundle/build
  --tests          also the tests that need a GPU
  --references DIR also these reference files, made by tests/torch/make_references.py
  --all-gpus       build for every GPU from Turing on; without it, for Hopper (sm_90) alone
  --gpus LIST      build for these, as CMAKE_CUDA_ARCHITECTURES has them, for example 80-real;90-real
  --no-archive     the folder alone, no DIR.tar.xz
Needs patchelf (and xz), and what building needs: launch/packages.sh --install.
TEXT
}

out=$source_folder/build-bundle/teskd
build=
tests=OFF
references=
gpus=90-real
archive=yes
while [ $# -gt 0 ]; do
  case $1 in
    --out | --build | --gpus | --references)
      [ $# -ge 2 ] || { echo "bundle.sh: $1 wants a value" >&2; exit 2; }
      case $1 in --out) out=$2 ;; --build) build=$2 ;; --gpus) gpus=$2 ;; --references) references=$2 ;; esac
      shift ;;
    --tests) tests=ON ;;
    --all-gpus) gpus= ;;
    --no-archive) archive=no ;;
    --help | -h) usage; exit 0 ;;
    *) echo "bundle.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

for tool in patchelf ldd strip mpirun ompi_info; do
  command -v "$tool" >/dev/null || { echo "bundle.sh: $tool is missing (apt-get install patchelf binutils libc-bin openmpi-bin)" >&2; exit 1; }
done
[ ! -e "$out" ] || { echo "bundle.sh: $out exists" >&2; exit 1; }

# Nothing half made is left behind.
trap '[ $? -eq 0 ] || rm -rf "$out"' EXIT

step() { printf '== %s\n' "$*"; }

if [ -z "$build" ]; then
  build=$source_folder/build-bundle/build
  step "Build in $build"
  cmake -S "$source_folder" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DTESKD_TESTS="$tests" \
    -DCMAKE_CUDA_ARCHITECTURES="$gpus"
  targets=(teskd)
  [ "$tests" = OFF ] || targets+=(test_backend_cuda)
  cmake --build "$build" --target "${targets[@]}"
fi
programs=("$build/teskd")
if [ "$tests" = ON ]; then
  programs+=("$build/tests/gpu/test_backend_cuda")
fi
for program in "${programs[@]}"; do
  [ -x "$program" ] || { echo "bundle.sh: $program is not built" >&2; exit 1; }
done

step "Programs and Open MPI"
mkdir -p "$out"
out=$(cd "$out" && pwd)
mkdir -p "$out"/{bin,lib,pmix/lib,launch,share/teskd,etc,tests}
cp "${programs[@]}" "$out/bin/"
cp "$(readlink -f "$(command -v mpirun)")" "$out/bin/mpirun"
cp "$(readlink -f "$(command -v orted)")" "$out/bin/orted"

# installed VALUE: a folder of Open MPI's installation, for example pkglibdir.
installed() { ompi_info --path "$1" --parsable | sed -n "s/^path:$1://p" | head -n 1; }
prefix=$(installed prefix)
plugins=$out/$(realpath -m --relative-to="$prefix" "$(installed pkglibdir)")
help=$out/$(realpath -m --relative-to="$prefix" "$(installed pkgdatadir)")
mkdir -p "$plugins" "$help"
for plugin in "$(installed pkglibdir)"/mca_*.so; do
  case ${plugin##*/} in
    *ucx* | *ofi* | *openib* | *psm* | *usnic* | *portals* | *flux* | *jsm*) ;; # other networks' and launchers' libraries
    *) cp -L "$plugin" "$plugins/" ;;
  esac
done
cp "$(installed pkgdatadir)"/help-*.txt "$help/"
cp -r "$(installed sysconfdir)" "$out/etc/openmpi"

# library FILE NAME: where the loader finds the library NAME for FILE; nothing when FILE does not need it.
library() { ldd "$1" | sed -n "s/^\s*$2\S* => \(\S*\).*/\1/p" | head -n 1; }

# Debian's Open MPI has a PMIx library of its own, with plugins beside it.
pmix=$(library "$(installed pkglibdir)/mca_pmix_ext3x.so" libpmix.so)
if [ -n "$pmix" ]; then
  pmix=$(realpath "$(dirname "$(realpath "$pmix")")/..")
  mkdir -p "$out"/pmix/{lib/pmix,share}
  cp "$pmix"/lib/pmix/*.so "$out/pmix/lib/pmix/"
  cp -r "$pmix/share/pmix" "$out/pmix/share/pmix"
fi

step "Libraries"
# From the C library come what must be of the same version as the system's loader; from the driver, libcuda and friends.
system='^(ld-linux.*|libc|libm|libmvec|libpthread|libdl|librt|libresolv|libutil|libanl|libnsl|libnss_.*|libcuda|libnvidia-.*)\.so'
blas=libopenblas.so.0 # opened by the device `reference` when it is used
cp -L "$(ldconfig -p | sed -n "s/^\s*$blas .*x86-64.* => //p" | head -n 1)" "$out/lib/$blas"
while read -r name path; do
  [ "$path" != not ] || { echo "bundle.sh: a program or plugin needs $name, which is not installed" >&2; exit 1; }
  [[ $name =~ $system ]] || [ -e "$out/lib/$name" ] || cp -L "$path" "$out/lib/$name"
done < <(find "$out"/{bin,lib,pmix} -type f \( -path '*/bin/*' -o -name '*.so*' \) -exec ldd {} \; |
  sed -n 's/^\s*\(\S*\) => \(\S*\).*/\1 \2/p' | sort -u)

# DT_RPATH, which also holds for what a library opens in its turn; DT_RUNPATH would not. strip comes first: it does not
# know what patchelf moves.
while read -r file; do
  chmod u+w "$file"
  strip --strip-unneeded "$file"
  patchelf --force-rpath --set-rpath "\$ORIGIN/$(realpath --relative-to="${file%/*}" "$out/lib")" "$file"
done < <(find "$out"/{bin,lib,pmix/lib} -type f)

step "Recipes, checks and scripts"
cp -r "$source_folder/configs" "$out/share/teskd/configs"
cp "$source_folder"/launch/{gpu_check,nvidia_libraries}.sh "$out/launch/"
cp "$source_folder/LICENSE" "$out/"
for folder in data bench torch gpu; do
  mkdir -p "$out/tests/$folder"
  find "$source_folder/tests/$folder" -maxdepth 1 -type f \( -name '*.h5' -o -name '*.py' \) -exec cp -t "$out/tests/$folder" {} +
done
[ -z "$references" ] || cp "$references"/*.h5 "$out/tests/data/"
cp "$source_folder/launch/bundled_run.sh" "$out/run.sh"

if [ "$archive" = yes ]; then
  step "Archive"
  tar -C "${out%/*}" -cJf "$out.tar.xz" "${out##*/}"
  du -h "$out.tar.xz"
fi
du -sh "$out"
echo "On the other machine: tar -xJf ${out##*/}.tar.xz, then ${out##*/}/run.sh teskd info"
