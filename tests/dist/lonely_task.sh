#!/usr/bin/env bash
# lonely_task.sh MPIRUN PROGRAM: tasks of a Slurm job that do not find each other are refused; a job of one task is not.
set -u
mpirun=$1 program=$2

refused() {
    local text
    text=$("$@" 2>&1) && echo "FAILED: not refused: $*" && exit 1
    [[ $text == *"srun --mpi=pmix"* ]] || { echo "FAILED: unclear message: $text" && exit 1; }
    echo "$text"
}
refused env SLURM_NTASKS=4 SLURM_PROCID=2 "$program" open 0
refused env SLURM_NTASKS=4 "$mpirun" --oversubscribe -np 1 "$program" open 0
SLURM_NTASKS=1 "$program" open 0 || { echo "FAILED: a job of one task was refused" && exit 1; }
SLURM_NTASKS=2 "$mpirun" --oversubscribe --bind-to none -np 2 "$program" open 0 || { echo "FAILED: two ranks of two were refused" && exit 1; }
