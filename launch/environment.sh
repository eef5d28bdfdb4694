# Sourced by the other scripts: `source launch/environment.sh FILE` puts what the requirements FILE names into .venv and
# activates it. A finished installation is remembered by the checksum of the requirements, so a second call costs nothing.
requirements=$1
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: $python is $("$python" --version 2>&1 || true); expected Python 3.11 or newer. Name one: PYTHON=python3.12 bash $0" >&2
  exit 2
fi
stamp=.venv/installed-$(basename "$requirements")-$(cat requirements*.txt | cksum | cut -d' ' -f1)
if [ ! -e "$stamp" ]; then
  echo "installing $requirements into .venv"
  "$python" -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check --requirement "$requirements"
  touch "$stamp"
fi
# shellcheck disable=SC1091
source .venv/bin/activate
export PYTHONUNBUFFERED=1
