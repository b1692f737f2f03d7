#!/bin/sh
# Stops the engine that start.sh started, and waits for its end. Usage: stop.sh HOME
set -eu

home=${1:?usage: stop.sh HOME}
[ -f "$home/dockerd.pid" ] || exit 0
id=$(cat "$home/dockerd.pid")
kill "$id" 2>/dev/null || exit 0
tries=0
while kill -0 "$id" 2>/dev/null && [ "$tries" -lt 60 ]; do
    tries=$((tries + 1))
    sleep 1
done
# The engine leaves this one behind, and target/ could not be removed.
umount "$home"/exec/netns/* 2>/dev/null || true
