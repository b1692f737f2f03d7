#!/bin/sh
# `make run`: with Rust on this machine, and without it where a Docker engine answers.
set -eu
cd "$(dirname "$0")/.."

has_rust() { command -v cargo >/dev/null 2>&1; }
has_docker() { docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; }

if has_rust || ! has_docker; then
    sh deploy/prepare.sh run
    cargo build --locked
    cargo build --locked -p hookwell-tests --bin demo
    exec target/debug/demo
fi

stack() { docker compose --project-name hookwell-demo --env-file deploy/compose/demo.env "$@"; }
follower=
end() {
    trap '' INT TERM HUP
    echo "Stopping ..."
    [ -z "$follower" ] || kill "$follower" 2>/dev/null || true
    stack --progress quiet down --volumes
    exit "$1"
}

echo "There is no Rust here, but Docker: building the images, once, and starting docker-compose.yml ..."
trap 'end 0' INT TERM HUP
stack --progress quiet up --detach --build || end 1
stack logs --follow --no-log-prefix demo &
follower=$!
wait "$follower" || true
# Only one that failed ends by itself.
end 1
