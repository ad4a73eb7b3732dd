#!/usr/bin/env bash
# Evaluate a zoo on a Slurm allocation: one Ray node per machine, one worker per GPU.
#   sbatch --nodes 8 --gpus-per-node 8 examples/ray-slurm.sh -m cherti2023 -d vtab+ -o /shared/results
# Everything after the script's name is handed to `clipeval run`. What the machines must share: docs/clusters.md.
#SBATCH --job-name clipeval
#SBATCH --ntasks-per-node 1
#SBATCH --cpus-per-task 64
#SBATCH --exclusive
set -euo pipefail

export CLIPEVAL_CACHE="${CLIPEVAL_CACHE:-$PWD/cache}"
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # not head, which would end scontrol with SIGPIPE
port=$((20000 + SLURM_JOB_ID % 20000))
export RAY_ADDRESS="$head_node:$port"
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"  # else whoever reaches the port may run programs as you
export RAY_AUTH_TOKEN="${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}"

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
log="ray-${SLURM_JOB_ID}.log"
srun --nodes 1 --ntasks 1 --overlap -w "$head_node" \
  ray start --head --port "$port" --num-cpus "$SLURM_CPUS_PER_TASK" --disable-usage-stats --block >"$log" 2>&1 &
head_pid=$! limit=$((SECONDS + ${RAY_START_SECONDS:-180}))
until ray status >/dev/null 2>&1; do
  if ! kill -0 "$head_pid" 2>/dev/null || ((SECONDS > limit)); then
    echo "Ray's head does not start on $head_node. It says ($log):" >&2
    tail -n 20 "$log" >&2
    exit 3
  fi
  sleep 2
done
if ((SLURM_JOB_NUM_NODES > 1)); then
  srun --nodes "$((SLURM_JOB_NUM_NODES - 1))" --ntasks "$((SLURM_JOB_NUM_NODES - 1))" --overlap -x "$head_node" \
    ray start --address "$RAY_ADDRESS" --num-cpus "$SLURM_CPUS_PER_TASK" --disable-usage-stats --block >>"$log" 2>&1 &
fi

# A job that is cut off goes on where it was when it is submitted again. Nodes that come up later join in.
clipeval run --executor ray "$@"
