#!/bin/sh
# sh tests/sim.sh HOURS: simulates from fresh seeds for so long, and stops at the first failure with its seed and step.
set -eu
cd "$(dirname "$0")/.."
exec env HOURS="${1:?for how many hours?}" cargo test --locked --test sim -- --nocapture
