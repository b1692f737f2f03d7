#!/bin/sh
# Makes stand-ins under the names of the official images that the project's files name, where they
# are neither here nor to be had. Usage: stand-ins.sh KAFKA_JARS
set -eu

here=$(dirname "$0")
project=$here/../..
jars=${1:?usage: stand-ins.sh KAFKA_JARS}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

named_in() { sed -n "$2" "$project/$1" | head -n 1; }
rust=rust:$(named_in deploy/Dockerfile 's/^ARG RUST=//p')-bookworm
kafka=$(named_in docker-compose.yml 's/^ *image: \(apache\/kafka:.*\)/\1/p')
prometheus=$(named_in docker-compose.yml 's/^ *image: \(prom\/prometheus:.*\)/\1/p')
base=debian:bookworm-slim

is_there() {
    docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" >/dev/null 2>&1
}

# With the classic builder, which is there wherever there is an engine.
build() { DOCKER_BUILDKIT=0 docker build --quiet --network host --tag "$1" "$2" >/dev/null 2>&1; }

say() { echo "stand-ins: $1 cannot be pulled; $2 stands in for it"; }

if ! is_there "$base"; then
    say "$base" "a minimal Debian"
    if ! command -v mmdebstrap >/dev/null 2>&1; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null
    fi
    mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm - | docker import - "$base" >/dev/null
fi

if ! is_there "$kafka"; then
    say "$kafka" "the same Kafka from Maven"
    cp -r "$here/kafka" "$scratch/kafka"
    cp -rL "$jars" "$scratch/kafka/jars"
    build "$kafka" "$scratch/kafka"
fi

if ! is_there "$prometheus"; then
    say "$prometheus" "Debian's"
    build "$prometheus" "$here/prometheus"
fi

# The machine's own Rust, with the crates that it has already and what it has compiled of them,
# which cargo takes for its own only where the crates lie under the same path. One that was made for
# other crates lacks some.
lock=$(cksum <"$project/Cargo.lock" | cut -d ' ' -f 1)
made_for=$(docker image inspect --format '{{index .Config.Labels "hookwell.lock"}}' "$rust" 2>/dev/null) || made_for=
if [ -n "$made_for" ] && [ "$made_for" != "$lock" ]; then
    docker image rm --force "$rust" >/dev/null
fi
if ! is_there "$rust"; then
    say "$rust" "this machine's Rust"
    build hookwell-tests/tools "$here/rust"
    toolchain=$(cd "$project" && rustc --print sysroot)
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    name=hookwell-tests-rust-$$
    docker run --name "$name" \
        --volume "$toolchain:/from/rust:ro" \
        --volume "$cargo_home/registry:/from/registry:ro" \
        --volume "$(cd "$project/target/debug" && pwd):/from/debug:ro" \
        --volume "$(cd "$here/rust" && pwd)/fill:/from/fill:ro" \
        --env CARGO_HOME="$cargo_home" \
        hookwell-tests/tools sh /from/fill
    docker commit --change "ENV CARGO_HOME=$cargo_home" --change "LABEL hookwell.lock=$lock" "$name" "$rust" >/dev/null
    docker rm "$name" >/dev/null
fi
