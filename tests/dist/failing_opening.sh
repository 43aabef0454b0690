#!/usr/bin/env bash
# failing_opening.sh MPIRUN PROGRAM LIBRARY: where rank 0 cannot open the control channel, all ranks end, and one says why.
set -u
text=$(timeout 60 "$1" --oversubscribe --bind-to none -np 3 -x LD_PRELOAD="$3" "$2" open 0 2>&1)
code=$?
echo "exit code $code: $text"
((code != 0 && code != 124)) || exit 1
[[ $(grep "^failing_rank: " <<<"$text") == "failing_rank: rank 0 on $(hostname): control channel: no random bytes: "* ]] || exit 1
(($(grep -c "^failing_rank: " <<<"$text") == 1)) || exit 1
