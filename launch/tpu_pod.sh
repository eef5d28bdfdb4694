#!/usr/bin/env bash
# Runs one training command on every worker of a TPU pod slice, and again after a preemption until it has finished:
#   bash launch/tpu_pod.sh NAME ZONE --config configs/stage2.py --workdir /mnt/shared/stage2 --config.devices.fsdp=16
# NAME is a TPU VM that exists; the checkout is copied to it. Workdir and data must lie on a file system that every worker has
# mounted at the same place (Filestore, or a bucket through gcsfuse).
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 3 ]; then
  sed -n '2,6p' "$0" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
on_all_workers() { gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "$1"; }

git archive --format=tar.gz --output=/tmp/realiz3d_jax.tar.gz HEAD
gcloud compute tpus tpu-vm scp /tmp/realiz3d_jax.tar.gz "$name": --zone "$zone" --worker=all
on_all_workers "mkdir -p realiz3d && tar -xzf realiz3d_jax.tar.gz -C realiz3d && cd realiz3d && python3 -m venv .venv &&
  .venv/bin/pip install --quiet -r requirements.txt 'jax[tpu]'"
# 143: stopped by a preemption after saving. Anything else that is not 0 is a mistake that starting again will not fix.
until on_all_workers "cd realiz3d && .venv/bin/python -m realiz3d_jax.train $(printf '%q ' "$@")"; do
  status=$?
  [ "$status" -eq 143 ] || [ "$status" -eq 255 ] || exit "$status"
  echo "worker ended with status $status; starting again in 30 s" >&2
  sleep 30
done
