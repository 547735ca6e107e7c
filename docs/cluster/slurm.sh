#!/bin/bash
# sbatch docs/cluster/slurm.sh sweep support_size scale=full task.root=/data/AFEW-VA trainer.resources.gpus=1
# A Ray cluster for as long as the job lasts, one Ray node a SLURM node, and one harness on it. docs/cluster.md
#SBATCH --job-name=harness
#SBATCH --nodes=2
#SBATCH --exclusive             # Ray is stopped at the end, all of it on a node
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@180     # three minutes before the end of its time, and where the partition is pre-empted with grace
#SBATCH --requeue
#SBATCH --open-mode=append

PATH=${HARNESS:-$SLURM_SUBMIT_DIR/.venv/bin}:$PATH
: "${GPUS:=${SLURM_GPUS_ON_NODE:-0}}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
ray get-auth-token --generate > /dev/null      # in the home that all nodes share; kept where there is one

: "${HEAD:=$(hostname -I | cut -d ' ' -f 1)}"              # this script runs on the first node; HEAD=… chooses another of its addresses
port=$((20000 + SLURM_JOB_ID % 10000))
notice=$SLURM_SUBMIT_DIR/.leave-$SLURM_JOB_ID             # seen by all nodes: all fits keep a checkpoint and leave
rm -f "$notice"
trap 'touch "$notice"' USR1 TERM

# A worker waits for the head, and joins again where it could not: `ray symmetric-run` would give up.
export HEAD port notice GPUS
srun bash -c '
  run() {
    ray symmetric-run --address "$HEAD:$port" --min-nodes "$SLURM_NNODES" --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$GPUS" \
      --dashboard-host=127.0.0.1 -- harness "$@" cluster=auto cluster.notice="$notice"
  }
  there() { (: < "/dev/tcp/$HEAD/$port") 2> /dev/null; }
  if [ "$SLURM_NODEID" = 0 ]; then run "$@"; exit; fi
  until there; do sleep 1; done
  while there; do run "$@"; sleep 2; done' harness "$@" &
step=$!
wait $step; status=$?
while kill -0 $step 2> /dev/null; do wait $step; status=$?; done   # a signal ends a wait
if [ -e "$notice" ]; then
  rm -f "$notice"
  scontrol requeue "$SLURM_JOB_ID"                        # the same command goes on where it was
fi
exit $status
