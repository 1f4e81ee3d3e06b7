#!/bin/bash
# One node, all its GPUs, one task for each. Five minutes before the end of its time the job saves and queues itself again.
#SBATCH --job-name=dfl
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append

# The scheduler signals this shell alone (B:); it hands the signal to the processes of srun and waits for them.
trap 'kill -USR1 "$step"' USR1
trap 'kill -TERM "$step"' TERM

srun --kill-on-bad-exit=0 python -m dfl fit --config vit_scl.yaml --config trainer/slurm.yaml \
    --ckpt_path last --root "$SLURM_SUBMIT_DIR" \
    --trainer.devices="$SLURM_NTASKS_PER_NODE" --trainer.num_nodes="$SLURM_JOB_NUM_NODES" &
step=$!
while wait "$step"; code=$?; kill -0 "$step" 2>/dev/null; do :; done  # a signal ends `wait`, not the step

# 75: saved because it was told to stop. Any other failure stays a failure.
if [ "$code" -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
