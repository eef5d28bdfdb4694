#!/usr/bin/env bash
# Installs what the tests need into .venv, checks the style and runs the whole suite. More arguments go to pytest:
#   bash launch/test.sh -m slow
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh requirements-dev.txt
ruff check .
ruff format --check .
python -m pytest "$@"
