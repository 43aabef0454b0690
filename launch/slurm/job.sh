# What the batch scripts share, to be sourced: the program and its arguments, and whether another start makes sense.
# Variables of whoever submits: TESKD_HOME, the source folder (unless submitted from there); TESKD, the program.
# shellcheck shell=bash disable=SC2034 # program and arguments are for the scripts

refuse() {
  echo "${SLURM_JOB_NAME:-job.sh}: $1" >&2
  exit 2
}

# A task of an array takes a line of its own of LIST: settings file, seed, method, output folder. Empty lines and those
# that begin with # do not count.
take_line() {
  local settings seed method output
  read -r settings seed method output \
    < <(grep -vE '^[[:space:]]*(#|$)' "$1" | sed -n "${SLURM_ARRAY_TASK_ID}p") || refuse "$1 has no line $SLURM_ARRAY_TASK_ID"
  [ -n "$output" ] || refuse "line $SLURM_ARRAY_TASK_ID of $1: expected settings file, seed, method, output folder"
  arguments=(--config "$settings" --set train.seed="$seed" --set model.method="$method" --set output.dir="$output")
}

checkpoint() { stat -c '%Y %i' "$output/last.h5" 2>/dev/null || echo none; }

# job_begin SETTINGS|LIST [option …]: sets program, arguments and output, the run's folder.
job_begin() {
  [ $# -gt 0 ] || refuse "the first argument is a settings file, or with --array a list of runs"
  program=${TESKD:-${TESKD_HOME:-$SLURM_SUBMIT_DIR}/build/teskd}
  [ -x "$program" ] || refuse "no program $program: build it, or set TESKD to its path"
  if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then take_line "$1"; else arguments=(--config "$1"); fi
  arguments+=("${@:2}" --resume auto)
  output=$("$program" "${arguments[@]}" --print-config | sed -n '/^\[output\]/,/^\[/s/^dir = //p')
  rm -f "$output/stopped" # of an earlier end
  before=$(checkpoint)
}

# job_end CODE: a run that was stopped goes back to the queue, but not after three starts that left no new checkpoint.
job_end() {
  # A launcher's exit code may not be the program's.
  if [ "$1" -ne 75 ] && [ ! -e "$output/stopped" ]; then exit "$1"; fi
  local job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} idle=0
  if [ "$(checkpoint)" = "$before" ]; then idle=$(($(cat "$output/idle_starts" 2>/dev/null || echo 0) + 1)); fi
  rm -f "$output/idle_starts"
  [ "$idle" -lt 3 ] || refuse "stopped, and not requeued: $idle starts in a row have left no new checkpoint"
  if [ "$idle" -gt 0 ]; then mkdir -p "$output" && echo "$idle" >"$output/idle_starts"; fi
  exec scontrol requeue "${job:-$SLURM_JOB_ID}"
}
