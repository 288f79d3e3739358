#!/usr/bin/env bash
# Runs the tests that can run under emulation on Bun for arm64, with qemu-user. Not part of
# `npm run ok`. There are no huge pages and no io_uring under it, and it is slow.
#
#   scripts/test-arm64.sh [FILE...]
#
# It needs Debian's qemu-user-static, libc6-arm64-cross, libstdc++6-arm64-cross and
# libgcc-s1-arm64-cross. They are unpacked below /tmp/pgarm64, so that root is not needed.
# docs/platforms.md says what ran.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(node_modules/.bin/bun --version)
home=/tmp/pgarm64

if [ ! -x "$home/bun-$version" ]; then
  mkdir -p "$home/fetch"
  (
    cd "$home/fetch"
    npm pack --silent "@oven/bun-linux-aarch64@$version" >/dev/null
    tar -xzf oven-bun-linux-aarch64-*.tgz
    apt-get download qemu-user-static libc6-arm64-cross libstdc++6-arm64-cross libgcc-s1-arm64-cross
    for package in *.deb; do dpkg-deb -x "$package" "$home/root"; done
  )
  cp "$home/fetch/package/bin/bun" "$home/bun-arm64"
  # Tests start other processes by the path of their own: this is Bun there, too.
  printf '#!/bin/sh\nexec %s -L %s %s "$@"\n' "$home/root/usr/bin/qemu-aarch64-static" \
    "$home/root/usr/aarch64-linux-gnu" "$home/bun-arm64" >"$home/bun-$version"
  chmod +x "$home/bun-$version"
  rm -rf "$home/fetch"
fi

"$home/bun-$version" -e 'console.log("Bun", Bun.version, process.arch)'
if [ $# -eq 0 ]; then
  set -- test/ffi/*.test.ts test/segment/*.test.ts test/allocator/*.test.ts \
    test/memory/*.test.ts test/checkpoint/*.test.ts test/load/queues.test.ts test/codec/*.test.ts
fi
# A file reserves less address space then, which takes real memory in the emulator.
ulimit -v $((64 << 20))
export TEST_MS=120000
exec scripts/run-suites.sh "$home/log" 300 4096 "$@" -- "$home/bun-$version"
