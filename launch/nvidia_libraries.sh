#!/usr/bin/env bash
# Prints the folders of NVIDIA's libraries (cuDNN, cuBLAS, NVRTC, NCCL) among the packages of the python3 in PATH, as
# LD_LIBRARY_PATH wants them; an empty line where there are none.
set -euo pipefail

if [ $# -ne 0 ]; then
  echo "usage: LD_LIBRARY_PATH=\$(launch/nvidia_libraries.sh) COMMAND"
  case $1 in --help | -h) exit 0 ;; *) exit 2 ;; esac
fi

if ! command -v python3 >/dev/null; then
  echo
  exit 0
fi
# Looked up, not imported: PyTorch itself takes seconds to load.
python3 - <<'PYTHON'
import glob
import importlib.util
import os

spec = importlib.util.find_spec("nvidia")
roots = list(spec.submodule_search_locations) if spec and spec.submodule_search_locations else []
folders = [folder for root in roots for folder in sorted(glob.glob(os.path.join(root, "*", "lib")))
           if glob.glob(os.path.join(folder, "*.so*"))]
print(":".join(folders))
PYTHON
