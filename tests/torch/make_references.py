"""Writes a reference file for every network, narrow and on small images: make_references.py FOLDER [NETWORK ...]

For `teskd reference`, on any device. launch/bundle.sh takes such a folder along (--references), so that all networks can
be checked on a machine with a GPU, in every precision.
"""

import pathlib
import subprocess
import sys

from teskd_torch import NETWORKS


def options_of(name):
    """Narrow: ResNeXt's 32 groups want 32 channels inside the first block.

    Not so narrow, with so few images or such long steps that rounding grows from layer to layer and step to step.
    """
    backbone = NETWORKS[name]
    size = 96 if backbone.imagenet else 32
    return {"network": name, "base-width": 16 if backbone.family == "resnext" else 8, "student-width": 32,
            "height": size, "width": size, "batch": 16, "samples": 8, "lr": 0.001, "steps": 2}


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    names = sys.argv[2:] or list(NETWORKS)
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        sys.exit(f"there is no network {unknown[0]!r}; the networks are {', '.join(NETWORKS)}")
    folder.mkdir(parents=True, exist_ok=True)
    program = pathlib.Path(__file__).with_name("make_reference.py")
    for name in names:
        words = [word for key, value in options_of(name).items() for word in (f"--{key}", str(value))]
        subprocess.run([sys.executable, program, folder / f"{name}.h5", *words], check=True)


if __name__ == "__main__":
    main()
