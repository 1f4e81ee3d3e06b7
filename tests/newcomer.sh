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
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel[export,serve]"
fi
export PATH="$environment/bin:$PATH" XDG_STATE_HOME="$work/state"
unset PYTHONPATH

step() { echo "== $*"; "$@"; }
background=()
trap 'kill "${background[@]}" 2>/dev/null || true' EXIT
[[ $(python -c "import dfl; print(dfl.__file__)") == "$environment"/* ]]  # the wheel's, not a checkout's
step dfl --version
step dfl list > list.txt
step dfl doctor
python "$here/newcomer_images.py" make set mixed
step dfl doctor --config meso4.yaml --data data/folder.yaml --data.train.root set
step dfl fit --config meso4.yaml --data data/folder.yaml --data.train.root set --data.num_workers 0 --data.batch_size 8 \
    --trainer.max_epochs 10 --trainer.accelerator cpu
step dfl test --name meso4 --ckpt_path best --trainer.accelerator cpu
# from here on the last: the best of 4 validation images is an early one, whose scores hardly differ between images
step dfl predict mixed --name meso4 --ckpt_path last --output scores.csv --trainer.accelerator cpu
python "$here/newcomer_images.py" check scores.csv

step dfl export meso4/last -o exported --to onnx
step dfl predict mixed --onnx exported/model.onnx --output onnx.csv
python "$here/newcomer_images.py" same scores.csv onnx.csv

port=$(python -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")
dfl serve --name meso4 --ckpt_path last --port "$port" > serve.txt 2>&1 & background+=($!)
for _ in $(seq 300); do curl --silent --fail "http://127.0.0.1:$port/health" > /dev/null && break; sleep 1; done
step curl --silent --show-error --fail --data-binary @mixed/cmyk.jpg "http://127.0.0.1:$port/score" -o answer.json
python -c "import json; answer = json.load(open('answer.json')); print(answer); assert 0 <= answer['score'] <= 1"
step curl --silent --output /dev/null --write-out '%{http_code}\n' --data-binary @mixed/text.jpg "http://127.0.0.1:$port/score"
if command -v chromium chromium-browser google-chrome > /dev/null; then
    step python "$here/serve_page.py" checkpoints/meso4/last.ckpt mixed/plain.jpg .  # serve_1200.png, serve_390.png
else
    echo "no Chromium is installed: the page was not looked at"
fi

PYTHONPATH="$here/sharing" python -c "
import time, hub_server
with hub_server.hub() as hub:
    print(hub.address, flush=True)
    time.sleep(3600)" > hub.txt & background+=($!)
until [ -s hub.txt ]; do sleep 0.2; done
# Xet, by which the client sends large files, is a protocol of other servers, which it would ask again and again
export HF_ENDPOINT=$(cat hub.txt) HF_TOKEN=token HF_HOME="$work/hub" HF_HUB_DISABLE_XET=1
step dfl push meso4/last somebody/meso4
step dfl predict mixed --ckpt_path hf://somebody/meso4 --output hub.csv --trainer.accelerator cpu
python "$here/newcomer_images.py" same scores.csv hub.csv
echo "all went well in $work"
