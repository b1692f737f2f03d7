#!/bin/sh
# Builds the plugin behind `docker compose` where it is missing, into the folder that is to be
# DOCKER_CONFIG. Usage: compose-plugin.sh DOCKER_CONFIG
set -eu

plugin=${1:?usage: compose-plugin.sh DOCKER_CONFIG}/cli-plugins/docker-compose
version=v2.40.3

[ ! -x "$plugin" ] || exit 0
command -v go >/dev/null 2>&1 || {
    echo "docker compose is missing, and without Go it cannot be built" >&2
    exit 1
}
echo "docker compose is missing; building $version with Go, once"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
go mod init plugin >/dev/null 2>&1
go get "github.com/docker/compose/v2/cmd@$version" >/dev/null 2>&1
go build -o plugin github.com/docker/compose/v2/cmd
mkdir -p "${plugin%/*}"
mv plugin "$plugin"
