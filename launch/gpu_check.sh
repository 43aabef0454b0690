#!/usr/bin/env bash
# Everything there is to check and measure on a machine with a GPU, in one go: stages with a time limit each, a log of
# each, and one table at the end. Changes no setting of the GPU.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
self=$root/launch/gpu_check.sh

usage() {
  cat <<'TEXT'
usage: launch/gpu_check.sh [options]
  --bundle DIR      check the programs of a folder made by launch/bundle.sh
  --build DIR       check those of a build (default: build; in a bundle: the bundle)
  --out DIR         folder for logs, runs and the table (default: gpu_check)
  --archive FILE    put logs, table and chosen plans into this archive (.tar.xz, .tar.gz, .tar) too; where it is there
                    already, its plans are used
  --budget SECONDS  for all stages together (default: no limit); a stage starts only with its whole limit left, the
                    others are listed as not run
  --only NAMES      these stages alone, by commas: a name, or the first part of names (reference,ops,bench)
  --skip NAMES      all but these
  --data FOLDER     images for the stage cifar, which trains until the budget's end and goes on at the next call
  --config FILE     recipe for the stage cifar (default: cifar100_r18.ini)
  --device cpu      what can be checked without a GPU, to try this script
  --dry-run         print the stages and their time limits
Exit code: 0; 1 when a stage failed; 2 for wrong usage; 77 when there is no GPU.
TEXT
}

# Name, seconds it may take at most, what it does; in the order of running.
stages='
device                  60  the GPU, the driver, what the program finds
ops_fp32               300  every op against float64, in place too; layers of real networks
ops_tf32               300  the same in TF32
ops_fp16               300  the same in float16
ops_bf16               300  the same in bfloat16
ops_deterministic      300  the same in float16, deterministic mode
ops_tuned_fp16         400  the same in float16, plans chosen by time, convolutions with sums
ops_tuned_bf16         400  the same in bfloat16
reference              600  reference files in each precision
rewrites               300  errors with and without the exact rewrites
capture                300  captured steps against launched ones, bit for bit
repeat                 300  two runs, bit for bit
resume                 300  stopped and resumed runs, bit for bit
nccl                   180  reductions by NCCL over one rank
ranks                  300  two ranks on one GPU through host memory
bench_resnet18         120  a step of resnet18 at 224, batch 256, fp16
bench_resnet18_host    120  the same, its images coming from the host
bench_cifarresnet18    120  a step of cifarresnet18, batch 128, fp16
bench_cifarresnet18_host  120  the same, its images coming from the host
torch_resnet18         540  the first against PyTorch, eager and compiled
torch_cifarresnet18    540  the second against PyTorch
memcheck               420  compute-sanitizer memcheck of two steps
racecheck              420  compute-sanitizer racecheck of the native kernels, alone and in two steps
cifar                    0  training on --data, as long as the budget allows
'

build=
bundle=
out=gpu_check
archive=
budget=0
only=
skip=
data=
config=cifar100_r18.ini
device=cuda
dry_run=no
stage=
given=("$@")
while [ $# -gt 0 ]; do
  case $1 in
    --bundle | --build | --out | --archive | --budget | --only | --skip | --data | --config | --device | --stage)
      [ $# -ge 2 ] || { echo "gpu_check.sh: $1 wants a value" >&2; exit 2; }
      case $1 in
        --bundle) bundle=$2 ;; --build) build=$2 ;; --out) out=$2 ;; --archive) archive=$2 ;;
        --budget) budget=$2 ;; --only) only=$2 ;; --skip) skip=$2 ;; --data) data=$2 ;; --config) config=$2 ;; --device) device=$2 ;;
        --stage) stage=$2 ;; # the script calls itself with it, so that `timeout` can end a stage with all it started
      esac
      shift ;;
    --dry-run) dry_run=yes ;;
    --help | -h) usage; exit 0 ;;
    *) echo "gpu_check.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

fail_usage() { echo "gpu_check.sh: $*" >&2; exit 2; }

[[ $budget =~ ^[0-9]+$ ]] || fail_usage "--budget: expected a number of seconds, not $budget"
case $device in cuda | cpu) ;; *) fail_usage "--device: expected cuda or cpu, not $device" ;; esac

# listed NAME LIST: the list has the name, or the part of it in front of a "_".
listed() {
  local name=$1 word words
  IFS=, read -ra words <<<"$2"
  for word in "${words[@]}"; do
    case $name in "$word" | "$word"_*) return 0 ;; esac
  done
  return 1
}

names=$(awk 'NF {print $1}' <<<"$stages")
for word in ${only//,/ } ${skip//,/ }; do
  found=no
  for name in $names; do ! listed "$name" "$word" || found=yes; done
  [ "$found" = yes ] || fail_usage "there is no stage \"$word\"; the stages are ${names//$'\n'/, }"
done

# ---- where the programs are ----

if [ -z "$build$bundle" ] && [ -x "$root/run.sh" ]; then
  bundle=$root
elif [ -z "$build$bundle" ]; then
  bundle=${TESKD_BUNDLE:-} # run.sh with a script of another place
fi
if [ -n "$bundle" ] && [ -z "${TESKD_BUNDLE:-}" ]; then
  exec "$bundle/run.sh" "$bundle/launch/gpu_check.sh" "${given[@]}" # comes back here, with the programs' environment
fi
if [ -n "$bundle" ]; then
  teskd=$TESKD_BUNDLE/bin/teskd
  ops=$TESKD_BUNDLE/bin/test_backend_cuda
else
  build=${build:-$root/build}
  teskd=$build/teskd
  ops=$build/tests/gpu/test_backend_cuda
  nvidia=$("$root/launch/nvidia_libraries.sh")
  if [ -z "$stage" ] && [ -n "$nvidia" ]; then
    export LD_LIBRARY_PATH=$nvidia${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  fi
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none # many containers forbid it
export PYTHONUNBUFFERED=1
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000} # else the program starts itself anew, perhaps out of a sanitizer's sight

# ---- the stages; each in a process of its own, with its log as output ----

figure() { printf 'figure: %s\n' "$*"; }

# A stage that has nothing to do here.
skip_stage() { figure "$*"; exit 77; }

need_gpu() { [ "$device" = cuda ] || skip_stage "needs a GPU"; }

stage_device() {
  if [ "$device" = cuda ]; then
    nvidia-smi || true
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit --format=csv || true
  fi
  "$teskd" info | tee "$out/info.txt" || return 1
  figure "$(sed -n "s/^ *$device  *\(.*\)/\1/p" "$out/info.txt" | head -n 1)"
}

# check_ops PRECISION [OPTION...]
check_ops() {
  need_gpu
  [ -x "$ops" ] || skip_stage "test_backend_cuda is not built"
  local log=$out/${stage}.cmocka status
  "$ops" "$@" >"$log" 2>&1
  status=$?
  grep -vE '^\[ (RUN|      OK)' "$log"
  figure "$(grep -c '^\[       OK \]' "$log") ops right, $(sed '/tests.*listed below/,$d' "$log" | grep -c '^\[  FAILED  \]') wrong"
  return $status
}

check_runs() {
  local mpirun
  mpirun=$(command -v mpirun || echo mpirun)
  rm -rf "$out/runs/$1"
  python3 "$root/tests/gpu/check_runs.py" "$@" --teskd "$teskd" --mpirun "$mpirun" --device "$device" --work "$out/runs/$1"
}

# bench NETWORK BATCH IMAGES: the table by op, then by node.
bench() {
  local settings=(--set run.device="$device" --set data.kind="$3")
  if [ "$device" = cuda ]; then
    settings+=(--set model.network="$1" --set train.batch="$2" --set run.precision=fp16 --steps 50)
  else
    settings+=(--set model.network=cifarresnet8 --set model.width=4 --set train.batch=8 --set run.threads=1 --steps 2)
  fi
  "$teskd" bench "${settings[@]}" | tee "$out/${stage}.txt" || return 1
  "$teskd" bench "${settings[@]}" --per-node || return 1
  figure "$(sed -n 's/^ *\([0-9.]* images.s; step [0-9.]* ms\).*/\1/p' "$out/${stage}.txt")"
}

# against_torch NETWORK BATCH [OPTION...]
against_torch() {
  need_gpu
  python3 -c 'import torch' || skip_stage "no PyTorch"
  local network=$1 batch=$2 status
  shift 2
  python3 "$root/tests/bench/compare_torch.py" --device cuda --network "$network" --batch "$batch" --teskd "$teskd" \
    --rounds 3 --steps 30 "$@" 2>&1 | tee "$out/${stage}.txt"
  status=$?
  figure "$(sed -n 's/^ratio to //p' "$out/${stage}.txt" | paste -sd ';' | sed 's/;/; /g')"
  return $status
}

# sanitize TOOL OPTION... -- COMMAND...
sanitize() {
  compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 20 "${@:2}"
}

# Two steps of a small network, every kernel launched by itself, with the sanitizer's options in front.
sanitize_steps() {
  rm -rf "$out/runs/$stage"
  sanitize "$@" "$teskd" train --set model.network=cifarresnet8 --set data.kind=synthetic --set data.train_images=32 \
    --set data.test_images=16 --set model.classes=10 --set train.batch=16 --set train.epochs=1 --set run.device=cuda \
    --set run.precision=fp16 --set run.deterministic=yes --set run.capture=no --set output.dir="$out/runs/$stage"
}

need_sanitizer() {
  need_gpu
  command -v compute-sanitizer >/dev/null || skip_stage "no compute-sanitizer"
}

stage_memcheck() {
  need_sanitizer
  # The libraries try out calls that fail; what counts is memory.
  sanitize_steps memcheck --report-api-errors no 2>&1 | tee "$out/${stage}.txt"
  local status=$?
  figure "$(grep -o 'ERROR SUMMARY: .*' "$out/${stage}.txt" | tail -n 1)"
  return $status
}

stage_racecheck() {
  need_sanitizer
  local status=0
  if [ -x "$ops" ]; then
    sanitize racecheck "$ops" fp16 --own >"$out/${stage}.txt" 2>&1 || status=1
    grep -vE '^\[ (RUN|      OK)' "$out/${stage}.txt"
  fi
  sanitize_steps racecheck --kernel-name regex=_kernel --kernel-name-exclude 'regex=cudnn|cublas|cutlass|xmma|gemm|nvjet' \
    2>&1 | tee -a "$out/${stage}.txt" || status=1
  figure "$(grep -o 'RACECHECK SUMMARY: .*' "$out/${stage}.txt" | paste -sd ';')"
  return $status
}

stage_cifar() {
  [ -n "$data" ] || skip_stage "no --data"
  local status limit=${TESKD_STAGE_SECONDS:-0}
  local command=("$teskd" train --config "$config" --set data.path="$data" --set run.device="$device"
    --set output.dir="$out/cifar" --resume auto)
  # The program ends after a step, with a checkpoint, when it is asked to.
  if [ "$limit" -gt 0 ]; then
    timeout --preserve-status --signal=TERM --kill-after=30 $((limit > 40 ? limit - 30 : 10)) "${command[@]}"
  else
    "${command[@]}"
  fi
  status=$?
  figure "$(last_epoch "$out/cifar/metrics.jsonl" $status)"
  [ $status -eq 75 ] || return $status
}

# last_epoch METRICS EXIT_CODE
last_epoch() {
  python3 - "$@" <<'PYTHON'
import json
import os
import sys

events = [json.loads(line) for line in open(sys.argv[1])] if os.path.exists(sys.argv[1]) else []
epochs = [event for event in events if event["event"] == "epoch"]
tested = [event for event in epochs if event.get("test_top1")]
words = ["no epoch done"]
if epochs:
    words = [f"epoch {epochs[-1]['epoch']} in {epochs[-1]['seconds']:.1f} s"]
if tested:
    best = max(event["test_top1"][0] for event in tested)
    words.append(f"teacher {100 * tested[-1]['test_top1'][0]:.2f} %, best {100 * best:.2f} %")
if sys.argv[2] == "75":
    words.append("to be continued")
print(", ".batch_launches(words))
PYTHON
}

run_stage() {
  local files=("$root"/tests/data/*.h5)
  case $stage in
    device) stage_device ;;
    ops_deterministic) check_ops fp16 --deterministic ;;
    ops_tuned_*) check_ops "${stage#ops_tuned_}" --tuned ;;
    ops_*) check_ops "${stage#ops_}" ;;
    reference) check_runs "$stage" "${files[@]}" ;;
    rewrites) check_runs "$stage" "$root/tests/data/cifarresnet8.h5" ;;
    capture | repeat | resume | nccl | ranks) check_runs "$stage" ;;
    bench_resnet18) bench resnet18 256 synthetic ;;
    bench_resnet18_host) bench resnet18 256 synthetic_host ;;
    bench_cifarresnet18) bench cifarresnet18 128 synthetic ;;
    bench_cifarresnet18_host) bench cifarresnet18 128 synthetic_host ;;
    torch_resnet18) against_torch resnet18 256 ;;
    torch_cifarresnet18) against_torch cifarresnet18 128 ;;
    memcheck) stage_memcheck ;;
    racecheck) stage_racecheck ;;
    cifar) stage_cifar ;;
    *) fail_usage "there is no stage \"$stage\"" ;;
  esac
}

if [ -n "$stage" ]; then
  run_stage
  exit
fi

# ---- all of them ----

wanted() {
  if [ -n "$only" ]; then
    listed "$1" "$only" || return 1
  fi
  ! listed "$1" "$skip"
}

if [ "$dry_run" = yes ]; then
  while read -r name limit what; do
    [ -z "$name" ] || ! wanted "$name" || printf '%-25s %4s s  %s\n' "$name" "${limit/#0/-}" "$what"
  done <<<"$stages"
  exit 0
fi

[ -x "$teskd" ] || fail_usage "$teskd is not built; give --build or --bundle"
if [ "$device" = cuda ]; then
  info=$("$teskd" info)
  if ! grep -q '^ *cuda *GPU 0' <<<"$info"; then
    printf 'gpu_check.sh: no GPU:\n%s\n' "$info" >&2
    exit 77
  fi
fi

mkdir -p "$out"
out=$(cd "$out" && pwd)
rows=$out/rows.txt
: >"$rows"
failed=0
unfinished=
least_without_limit=60 # seconds of the budget, for a stage that takes all that is left

print_table() {
  {
    printf '%-25s %-8s %8s  %s\n' stage result seconds figure
    cat "$rows"
    [ -z "$unfinished" ] || printf 'not run, too little time was left: --only %s\n' "${unfinished#,}"
  } | tee "$out/table.txt"
}

# ---- the archive: gpu_check/ with the files of $out that are no runs, and gpu_check/plans ----

# The programs keep their plans in $out/plans, where those of an archive are put first.
take_plans() {
  export XDG_CACHE_HOME=$out/plans
  mkdir -p "$XDG_CACHE_HOME"
  [ -e "$archive" ] || return 0
  local names
  names=$(tar -taf "$archive") || fail_usage "--archive: $archive cannot be read"
  ! grep -q '^gpu_check/plans/' <<<"$names" ||
    tar -xaf "$archive" -C "$out" --strip-components=1 gpu_check/plans ||
    fail_usage "--archive: the plans in $archive cannot be read"
}

write_archive() {
  local part=${archive%/*}/.$$.${archive##*/}
  (cd "$out" && find . -type f -not -name "${part##*/}" -not -name "${archive##*/}" \
    \( -not -path './*/*' -o -path './plans/*' -o -path ./cifar/metrics.jsonl \) -print0) |
    tar -caf "$part" -C "$out" --null -T - --transform 's,^\.,gpu_check,' && mv "$part" "$archive" && return
  rm -f "$part"
  echo "gpu_check.sh: $archive cannot be written" >&2
  return 1
}

finish() {
  print_table
  if [ -n "$archive" ]; then
    write_archive || failed=1
  fi
  exit $failed
}

child=
stop() {
  trap '' INT TERM
  [ -z "$child" ] || { kill "$child"; wait "$child"; } 2>/dev/null || true # a training writes its checkpoint
  failed=1
  finish
}
trap stop INT TERM

add_row() { printf '%-25s %-8s %8s  %s\n' "$@" | cut -c 1-200 >>"$rows"; }

# run_with_limit NAME SECONDS: 0 seconds is no limit.
run_with_limit() {
  local limit=$2 log=$out/$1.log begin=$SECONDS status result
  TESKD_STAGE_SECONDS=$limit timeout --kill-after=10 "$limit" "$self" "${given[@]}" --out "$out" --stage "$1" >"$log" 2>&1 &
  child=$!
  wait $child # unlike a command in the foreground, ended by a signal to this script
  status=$?
  case $status in
    0) result=ok ;;
    77) result=skipped ;;
    *) result=FAILED; failed=1 ;;
  esac
  local figure
  figure=$(sed -n 's/^figure: //p' "$log" | tail -n 1)
  case $status in
    124 | 137) figure="not done after $limit s; $figure" ;;
    0 | 77) ;;
    *) figure=${figure:-exit code $status: $(grep -v '^$' "$log" | tail -n 1)} ;;
  esac
  add_row "$1" $result $((SECONDS - begin)) "$figure"
  printf '%s: %s (%s s) %s\n' "$1" $result $((SECONDS - begin)) "$figure"
}

if [ -n "$archive" ]; then
  [ -d "$(dirname "$archive")" ] || fail_usage "--archive: there is no folder $(dirname "$archive")"
  archive=$(cd "$(dirname "$archive")" && pwd)/$(basename "$archive")
  take_plans
fi

while read -r name limit what <&3; do
  if [ -z "$name" ] || ! wanted "$name"; then
    continue
  fi
  left=$((budget - SECONDS))
  if [ "$budget" -gt 0 ] && [ $left -lt $((limit > 0 ? limit : least_without_limit)) ]; then
    add_row "$name" 'not run' 0 "$((left > 0 ? left : 0)) s were left"
    unfinished+=,$name
    continue
  fi
  if [ "$budget" -gt 0 ] && [ "$limit" -eq 0 ]; then
    limit=$left
  fi
  run_with_limit "$name" "$limit"
done 3<<<"$stages"

echo
finish
