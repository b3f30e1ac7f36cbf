#!/bin/sh
# What is claimed of GPUs, tried on one: at most 8 minutes on a machine with torch, and with neither pip nor network.
#
#   scripts/gpu-bundle 3.12          beforehand, where there is a network: build/gpu-bundle-3.12.tar.gz goes along
#   tests/gpu/check.sh [PART…]       there; all parts, or those named: exactness recovery state precision nccl cost
#
# Prints PASS, FAIL and SKIP lines, and as its last line all figures as key=value. Each part has a limit of its own, and
# one that fails does not keep the others from being tried.
#
# Environment: DEVICE  cuda (default), or cpu, to try the check itself out
#              PYTHON  the Python that has torch (default: python3)
#              SECONDS_IN_ALL  when no further part may run (default: 480)
#              PATIENCE  what limits are multiplied by, on a machine that is busy with other things (default: 1)
# Exit codes:  0 all passed, 1 something failed, 2 it cannot be tried here
set -u

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$root" || exit 2
DEVICE=${DEVICE:-cuda}
python=${PYTHON:-python3}
in_all=${SECONDS_IN_ALL:-480}
begun=$(date +%s)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
FIGURES=$work/figures
: >"$FIGURES"
export DEVICE FIGURES
export PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
[ "$DEVICE" = cuda ] || export CUDA_VISIBLE_DEVICES=''

cannot() { # why
    echo "gpu-check: $1" >&2
    exit 2
}

# seconds of each part
limit_of() {
    case $1 in
    exactness) echo 190 ;; recovery) echo 100 ;; state) echo 50 ;; precision) echo 60 ;; nccl) echo 50 ;; cost) echo 80 ;;
    esac
}

part() { # name
    left=$((begun + in_all - $(date +%s)))
    limit=$(($(limit_of "$1") * ${PATIENCE:-1}))
    [ "$limit" -le "$left" ] || limit=$left
    echo "== $1 (at most $limit s)"
    if [ "$limit" -lt 5 ]; then
        echo "FAIL  $1  (no time is left for it)"
        return 1
    fi
    started=$(date +%s)
    timeout -k 5 "$limit" "$python" -m "gpu.$1" 2>"$work/errors" && code=0 || code=$?
    if [ "$code" != 0 ]; then
        [ "$code" -lt 124 ] || echo "FAIL  $1  (ended after $limit s)"
        tail -n 30 "$work/errors"
        [ "$code" = 1 ] || echo "FAIL  $1  (exit code $code)"
    fi
    printf '%s_s=%s ' "$1" $(($(date +%s) - started)) >>"$FIGURES"
    return "$code"
}

case $DEVICE in cuda | cpu) ;; *) cannot "DEVICE is '$DEVICE'; want cuda or cpu" ;; esac
for name in "$@"; do
    [ -n "$(limit_of "$name")" ] || cannot "there is no part '$name'"
done
minor=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || cannot "there is no $python; set PYTHON"
bundle=build/gpu-bundle-$minor.tar.gz
export PYTHONPATH=$root/operator:$root/worker-image:$root/tests
if [ -f "$bundle" ]; then
    mkdir "$work/bundle"
    tar -C "$work/bundle" -xzf "$bundle" || cannot "$bundle cannot be unpacked"
    PYTHONPATH=$PYTHONPATH:$work/bundle
fi
"$python" -c 'import pydantic, aiohttp, cryptography, prometheus_client, numpy, pytest' ||
    cannot "packages are missing: run scripts/gpu-bundle $minor where there is a network, and bring $bundle along"
about=$("$python" - <<'END'
import os
import sys
import torch

on_gpu = os.environ["DEVICE"] == "cuda"
if on_gpu and not torch.cuda.is_available():
    sys.exit("torch finds no GPU here; DEVICE=cpu tries the check itself out")
name = torch.cuda.get_device_name(0).replace(" ", "-") if on_gpu else "none"
print(f"device={os.environ['DEVICE']} torch={torch.__version__} cuda={torch.version.cuda} gpu={name}")
END
) || cannot "torch cannot be used"
echo "$about python=$minor"

result=pass
for name in ${*:-exactness recovery state precision nccl cost}; do
    part "$name" || result=fail
done
echo "result=$result $about python=$minor seconds=$(($(date +%s) - begun)) $(cat "$FIGURES")"
[ "$result" = pass ]
