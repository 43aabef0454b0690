#!/usr/bin/env bash
# No own kernel may spill registers or use local memory, on any architecture that the library holds.
# check_spills.sh CUOBJDUMP LIBRARY
set -euo pipefail
cuobjdump=$1 library=$2
if ! command -v "$cuobjdump" > /dev/null; then
    echo "no cuobjdump: nothing is checked"
    exit 77
fi
"$cuobjdump" --dump-resource-usage "$library" 2> /dev/null | awk '
    /arch = / { arch = $NF }
    / Function / { name = $2; sub(/:$/, "", name) }
    /REG:/ {
        kernels[arch]++
        match($0, /REG:[0-9]+/)
        registers = substr($0, RSTART + 4, RLENGTH - 4) + 0
        if (registers > most[arch])
            most[arch] = registers
        if ($0 !~ /STACK:0 / || $0 !~ /LOCAL:0 /) {
            print arch, name, $0
            bad++
        }
    }
    END {
        for (a in kernels) {
            print a ": " kernels[a] " kernels, at most " most[a] " registers"
            total += kernels[a]
        }
        if (bad)
            print bad " kernels use local memory"
        exit bad || !total
    }'
