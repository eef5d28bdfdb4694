#!/usr/bin/env bash
# From nothing to an evaluated result on any machine: data, Stage 1, Stage 2, samples, metrics, report. About 15 minutes on two
# CPU cores after the installation. What an interrupted call has finished is not done again.
#   bash launch/quickstart.sh [OUTPUT, by default runs/quickstart]
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:-runs/quickstart}
source launch/environment.sh requirements.txt
# Huge pages for XLA's scratch memory: the embedded model's steps take 0.88 of the time, sampling 0.94. Larger models' steps can
# take longer, so it is set here alone (python -m benchmarks.huge_pages).
if grep -qs '\[\(always\|madvise\)\]' /sys/kernel/mm/transparent_hugepage/enabled; then
  export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
fi
data=$output/datasets
step() { printf '\n== %s (after %d s)\n' "$1" "$SECONDS"; }
SECONDS=0

step "1/6 shapes: meshes, captions, geometry maps and synthetic renders"
python -m realiz3d_jax.prepare --dataset shapes_assets --directory "$data"

step "2/6 real images, made by the shipped base model from a part of the captions (300 of 1,500)"
python -m realiz3d_jax.prepare --self-generate --count 300 --directory "$data"

step "3/6 Stage 1: Domain Shifters, backbone frozen"
python -m realiz3d_jax.train --config configs/stage1.py --workdir "$output/stage1" --config.data.directory="$data"

step "4/6 Stage 2: backbone and control, Domain Shifters frozen"
python -m realiz3d_jax.train --config configs/stage2.py --workdir "$output/stage2" --config.data.directory="$data" \
  --config.init.source="$output/stage1"

step "5/6 samples of 40 held-out objects, in real mode and in synthetic mode"
for domain in real synthetic; do
  python -m realiz3d_jax.sample --workdir "$output/stage2" --data "$data" --split test --domain "$domain" --output "$output/$domain"
done

step "6/6 metrics and report"
python -m realiz3d_jax.evaluate --samples "$output/real" --samples "$output/synthetic" --data "$data" --output "$output/metrics.json"
python -m realiz3d_jax.report --metrics "$output/metrics.json" --samples "$output/real" --samples "$output/synthetic" \
  --runs "$output/stage1" --runs "$output/stage2" --data "$data" --output "$output/report.html"
printf '\ndone after %d s: open %s\n' "$SECONDS" "$output/report.html"
