#!/usr/bin/env bash
# Installs what the tests need into .venv, checks the style and runs the whole suite. With arguments it runs pytest alone:
#   bash launch/test.sh tests/method
#   bash launch/test.sh -m slow
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh requirements-dev.txt
if [ $# -gt 0 ]; then
  exec python -m pytest "$@"
fi
ruff check .
ruff format --check .
pyright
python -m pytest

# Apache Beam is optional and wants an older protobuf than the rest: it has an environment of its own, above the first one.
packages() { "$1" -c "import sysconfig; print(sysconfig.get_path('purelib'))"; }
if [ ! -e .venv-beam/installed ]; then
  echo "installing requirements-beam.txt into .venv-beam"
  python -m venv .venv-beam
  packages python > "$(packages .venv-beam/bin/python)/first.pth"
  .venv-beam/bin/pip install --quiet --disable-pip-version-check --requirement requirements-beam.txt
  touch .venv-beam/installed
fi
.venv-beam/bin/python -m pytest tests/preparation/test_asset_sets.py -k beam
