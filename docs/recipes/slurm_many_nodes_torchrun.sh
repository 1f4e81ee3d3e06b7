#!/bin/bash
# Several nodes, one torchrun on each, which starts a process for each GPU. For clusters where srun may not start tasks by GPU.
#SBATCH --job-name=dfl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# torchrun hands SIGTERM on to its processes and gives them 30 seconds. Its own exit code is then 1, not their 75, so a
# variable remembers that the job was preempted.
preempted=
trap 'preempted=yes; kill -TERM "$step"' USR1 TERM

srun --kill-on-bad-exit=0 torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node=4 --rdzv-id="$SLURM_JOB_ID" \
    --rdzv-backend=c10d --rdzv-endpoint="$head:29500" --max-restarts=0 \
    -m dfl fit --config vit_scl.yaml --config trainer/ddp.yaml --ckpt_path last --root "$SLURM_SUBMIT_DIR" \
    --trainer.devices=4 --trainer.num_nodes="$SLURM_JOB_NUM_NODES" &
step=$!
while wait "$step"; code=$?; kill -0 "$step" 2>/dev/null; do :; done

if [ -n "$preempted" ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
