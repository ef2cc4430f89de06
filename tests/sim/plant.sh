#!/bin/sh
# sh tests/sim/plant.sh [DIRECTORY]: proves the simulation. Applies each of faults/*.patch alone, in a scratch copy of what is
# committed, runs it there, and prints after how many steps each is found, and whether with the daemon killed now and then.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
scratch=${1:-$(mktemp -d)}
mkdir -p "$scratch/tree"
git -C "$here" archive HEAD | tar -x -C "$scratch/tree"
cp "$here"/tests/sim/faults/*.patch "$scratch"
cd "$scratch/tree"
export CARGO_TARGET_DIR="$scratch/target" RUST_BACKTRACE=0

run() {
    FIRST=1 SEEDS=60 cargo test --locked --test sim "$1" -- --nocapture >"$2" 2>&1
}

plain() {
    run nothing_is_lost_whatever_happens "$1"
}

kills() {
    run nothing_is_lost_when_the_daemon_is_killed "$1"
}

# found [HOW]: a row of the table for what $out says.
found() {
    where=$(sed -n 's/^after .*SEED=\([0-9]*\) STEPS=\([0-9]*\).*/\1 \2/p' "$out" | head -n 1)
    seed=${where% *} step=${where#* }
    total=$(((seed - 1) * 40000 + step))
    why=$(grep -A 1 "panicked at" "$out" | sed -n 2p | tr '|' ' ' | cut -c 1-90)
    echo "| $name | $total steps${1-} | $why |"
}

echo "| fault | found after | as |"
echo "|---|---|---|"
for fault in "$scratch"/*.patch; do
    name=$(basename "$fault" .patch)
    patch -s -p1 <"$fault"
    out="$scratch/$name.out"
    # The same seeds for each, so that the table can be made again.
    if ! cargo test --locked --test sim --no-run >"$out" 2>&1; then
        echo "| $name | does not compile | |"
    elif plain "$out"; then
        if kills "$out"; then
            echo "| $name | not found | |"
        else
            found ", with kills"
        fi
    else
        found
    fi
    patch -s -R -p1 <"$fault"
done
