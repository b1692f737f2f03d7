#!/bin/sh
# Has libFuzzer look for what makes a target panic, hang, or take memory without bound.
# Usage: run.sh "TARGET ..." MINUTES; no target means all of them, MINUTES each.
set -eu
cd "$(dirname "$0")/../.."
targets=${1:-addresses configurations keys presets quarantine recipes records states}
minutes=$2
host=$(rustc -vV | sed -n 's/^host: //p')
out=target/fuzz

# What libFuzzer sees of the code, in flags that a stable compiler takes.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-pc-table"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS="$coverage" cargo build --locked --profile fuzz -p hookwell-fuzz --features libfuzzer --bin fuzz \
    --target "$host" --target-dir "$out"

for target in $targets; do
    mkdir -p "$out/found/$target" "$out/faults/$target" "$out/cases/$target" "tests/fuzz/corpus/$target"
    echo "fuzz: $target for $minutes minutes; what it finds interesting goes to $out/found/$target"
    FUZZ_TARGET=$target FUZZ_CASES=$out/cases/$target "$out/$host/fuzz/fuzz" "$out/found/$target" "$out/cases/$target" "tests/fuzz/corpus/$target" \
        -max_total_time=$((minutes * 60)) -max_len=70000 -len_control=20 -timeout=20 \
        -rss_limit_mb=1024 -malloc_limit_mb=256 -print_final_stats=1 \
        -artifact_prefix="$out/faults/$target/"
done
