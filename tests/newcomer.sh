#!/usr/bin/env bash
# What somebody does who has a wheel and a folder of images: bash tests/newcomer.sh WHEEL [ENVIRONMENT]
# In an empty folder, in a fresh environment unless one is given; python is $PYTHON or python3. Ends with 0 if all went well.
set -euo pipefail
wheel=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
environment=${2:-$work/environment}
cd "$work"
if [ $# -lt 2 ]; then
    "${PYTHON:-python3}" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
fi
export PATH="$environment/bin:$PATH" XDG_STATE_HOME="$work/state"
unset PYTHONPATH

step() { echo "== $*"; "$@"; }
[[ $(python -c "import dfl; print(dfl.__file__)") == "$environment"/* ]]  # the wheel's, not a checkout's
step dfl --version
step dfl list | head -n 3
step dfl doctor
python "$here/newcomer_images.py" set mixed
step dfl doctor --config meso4.yaml --data data/folder.yaml --data.train.root set
step dfl fit --config meso4.yaml --data data/folder.yaml --data.train.root set --data.num_workers 0 --data.batch_size 8 \
    --trainer.max_epochs 1 --trainer.accelerator cpu
step dfl test --name meso4 --ckpt_path best --trainer.accelerator cpu
step dfl predict mixed --name meso4 --ckpt_path best --output scores.csv --trainer.accelerator cpu
python "$here/newcomer_images.py" check scores.csv
echo "all went well in $work"
