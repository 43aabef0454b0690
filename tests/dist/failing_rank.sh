#!/usr/bin/env bash
# failing_rank.sh MPIRUN PROGRAM MODE RANK [mpirun options]: runs PROGRAM with RANK of three failing, and checks that the
# run ends within ten seconds of that, unsuccessfully, with exactly one message on stderr, which names what happened and
# where.
set -u
mpirun=$1 program=$2 mode=$3 rank=$4
shift 4
options=$#

# Where `saw`, every survivor hears of it: not those that mpirun may kill first, while they compute, while MPI itself
# reports a lost peer or (within a quarter of a second, Open MPI 5) after one ended, and not those that are stuck.
saw=$options kind=
case $mode in
killed | busy | queued) message="rank $rank on $(hostname) ended without a word (its connection closed)" ;;
abort) message="rank $rank on $(hostname): the disk is full" ;;
signal) message="rank $rank on $(hostname): stopped by SIGUSR2" kind=" (a signal)" ;;
stuck) message="rank $rank on $(hostname) ended without a word (its connection closed)" saw=0 ;;
agree | slow) message="rank $rank on $(hostname): the disk is full" saw=1 ;;
silent) message="rank 0 on $(hostname): an all-reduce has taken 3 s, while every rank is alive" saw=0 ;;
deadline) message="rank 0 on $(hostname): waiting for the GPU: its reductions were not done within" saw=0 ;;
*) echo "unknown mode $mode" && exit 2 ;;
esac

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
timeout --kill-after=5 60 "$mpirun" --oversubscribe --bind-to none -np 3 "$@" "$program" "$mode" "$rank" \
    >"$folder/out" 2>"$folder/err"
code=$?
end=$(date +%s)
begin=$(sed -n 's/^fails at //p' "$folder/out")
seconds=$((end - ${begin:-0}))
echo "exit code $code after $seconds s; stdout, stderr:"
cat "$folder/out" "$folder/err"

fail() {
    echo "FAILED: $*"
    exit 1
}
((code != 124)) || fail "no end"
((code != 0 || options)) || fail "exit code $code" # what options may change
((seconds <= 10)) || fail "$seconds s until the end"
count=$(grep -c "^[^ ]*failing_rank: " "$folder/err")
((count == 1)) || fail "$count messages instead of one"
grep -qF "failing_rank: $message" "$folder/err" || fail "no message \"$message\""

if ((saw)); then
    for survivor in 0 1 2; do
        [[ $survivor == "$rank" ]] || grep -qF "rank $survivor saw: $message$kind" "$folder/out" ||
            fail "rank $survivor did not see \"$message\""
    done
fi
exit 0
