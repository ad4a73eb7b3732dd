#!/usr/bin/env bash
# Evaluate a zoo on a Slurm allocation: one Ray node per machine, one worker per GPU.
#   sbatch --nodes 8 --gpus-per-node 8 examples/ray-slurm.sh -m cherti2023 -d vtab+ -o /shared/results
# Everything after the script's name is handed to `clipeval run`. Checkpoints, data, CLIPEVAL_CACHE and -o
# must lie on a file system that all machines share (embeddings may go to a bucket: CLIPEVAL_STORE=s3://...).
#SBATCH --job-name clipeval
#SBATCH --ntasks-per-node 1
#SBATCH --cpus-per-task 64
#SBATCH --exclusive
set -euo pipefail

export CLIPEVAL_CACHE="${CLIPEVAL_CACHE:-$PWD/cache}"
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # not head, which would end scontrol with SIGPIPE
port=$((20000 + SLURM_JOB_ID % 20000))
export RAY_ADDRESS="$head_node:$port"

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
srun --nodes 1 --ntasks 1 --overlap -w "$head_node" \
  ray start --head --port "$port" --num-cpus "$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
until ray status >/dev/null 2>&1; do sleep 2; done
if ((SLURM_JOB_NUM_NODES > 1)); then
  srun --nodes "$((SLURM_JOB_NUM_NODES - 1))" --ntasks "$((SLURM_JOB_NUM_NODES - 1))" --overlap -x "$head_node" \
    ray start --address "$RAY_ADDRESS" --num-cpus "$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
fi

# A job that is cut off goes on where it was when it is submitted again.
clipeval run --executor ray "$@"
