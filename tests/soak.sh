#!/bin/sh
# sh tests/soak.sh SECONDS [SEED]: a hundred kills and twenty takeovers under calls, and whatever else happens, for so long.
set -eu
cd "$(dirname "$0")/.."
SOAK_SECONDS="${1:?for how many seconds?}" SEED="${2:-1}"
export SOAK_SECONDS SEED
exec sh tests/run.sh --test integration soak:: -- --nocapture --test-threads=1
