#!/bin/sh
# Sees to it that this machine has what `make run` and `make test` need, and says what it installs.
# Usage: prepare.sh run|test
set -eu

need_cargo() {
    PATH="$HOME/.cargo/bin:$PATH"
    if command -v cargo >/dev/null 2>&1; then return; fi
    echo "prepare: installing Rust with rustup"
    if ! curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --no-modify-path; then
        echo "prepare: Rust could not be installed; install it from https://rustup.rs and run this again" >&2
        exit 2
    fi
}

# need_package COMMAND PACKAGE...: installs Debian packages where COMMAND is missing.
need_package() {
    command=$1
    shift
    if command -v "$command" >/dev/null 2>&1; then return; fi
    if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
        echo "prepare: $command is missing; install it ($* on Debian) and run this again" >&2
        return 1
    fi
    echo "prepare: installing $*"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

mode=${1:?usage: prepare.sh run|test}

# What librdkafka, OpenSSL and ring are built with.
need_package cc gcc g++ libc6-dev
need_package make make
need_package perl perl
need_package curl curl ca-certificates
# What the README and the demonstration say to type.
need_package openssl openssl
need_cargo
# What reads every recipe a second time.
if [ "$mode" = test ]; then need_package python3 python3; fi

# A real Kafka comes from Maven and runs on Java. The demonstration goes on without it, on
# librdkafka's mock broker; the tests do not.
if ! need_package java openjdk-17-jre-headless || ! need_package mvn maven; then
    [ "$mode" = run ] || exit 2
fi
