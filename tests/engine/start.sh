#!/bin/sh
# Starts a Docker engine of the tests' own, whose data, socket and process id lie under HOME.
# Usage: start.sh HOME
set -eu

home=${1:?usage: start.sh HOME}
socket=unix://$home/docker.sock

fail() {
    echo "$*" >&2
    exit 1
}
answers() { DOCKER_HOST=$socket docker info >/dev/null 2>&1; }

[ "$(id -u)" = 0 ] || fail "no Docker engine answers, and only root can start one"
if ! command -v dockerd >/dev/null 2>&1 || ! command -v iptables >/dev/null 2>&1; then
    command -v apt-get >/dev/null 2>&1 || fail "no Docker engine answers, and without apt-get none can be installed"
    apt-get update -qq || fail "no Docker engine answers, and apt-get cannot reach its archive"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null ||
        fail "no Docker engine answers, and docker.io cannot be installed"
fi

mkdir -p "$home"
if ! answers; then
    rm -f "$home/docker.sock" "$home/dockerd.pid"
    dockerd --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/dockerd.pid" --host "$socket" \
        >"$home/dockerd.log" 2>&1 </dev/null &
    tries=0
    until answers; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || fail "dockerd does not answer: $(tail -n 3 "$home/dockerd.log")"
        sleep 1
    done
fi
