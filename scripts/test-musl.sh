#!/usr/bin/env bash
# Runs the tests on Bun for musl (as in Alpine), on a machine with glibc. Not part of `npm run ok`.
#
#   scripts/test-musl.sh [FILE...]     default: all test files but those of docs, package and bench
#
# It fetches Bun for musl from npm, musl from Debian (Bun needs 1.2.5), and libstdc++ and libgcc
# from a musllinux wheel of PyPI, and keeps them under /tmp/pgmusl. The path is short because it
# replaces that of the loader in Bun's binary. docs/platforms.md says what ran.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ "$(uname -m)" = x86_64 ] || { echo "This script needs an x86_64 machine"; exit 1; }
version=$(node_modules/.bin/bun --version)
home=/tmp/pgmusl
musl=musl_1.2.5-3_amd64.deb

if [ ! -x "$home/bun-$version" ]; then
  mkdir -p "$home/lib" "$home/etc" "$home/fetch"
  (
    cd "$home/fetch"
    npm pack --silent "@oven/bun-linux-x64-musl@$version" >/dev/null
    tar -xzf oven-bun-linux-x64-musl-*.tgz
    curl -fsSLO "http://deb.debian.org/debian/pool/main/m/musl/$musl"
    dpkg-deb -x "$musl" musl
    pip3 download --quiet --no-deps --only-binary=:all: --platform musllinux_1_2_x86_64 \
      --python-version 3.12 numpy
    python3 -m zipfile -e numpy-*.whl numpy
  )
  loader=$(find "$home/fetch/musl" -name 'libc.so' -o -name 'ld-musl-x86_64.so.1' -type f | head -1)
  cp "$loader" "$home/lib/ld.so"
  cp "$home"/fetch/numpy/numpy.libs/libgcc_s-*.so.1 "$home/lib/libgcc_s.so.1"
  cp "$home"/fetch/numpy/numpy.libs/libstdc++-*.so.6* "$home/lib/libstdc++.so.6"
  # The wheel's libstdc++ asks for its libgcc by the wheel's name.
  cp "$home"/fetch/numpy/numpy.libs/libgcc_s-*.so.1 "$home/lib/"
  # The loader finds this file beside its own directory.
  echo "$home/lib" >"$home/etc/ld-musl-x86_64.path"
  python3 - "$home" "$version" <<'PATCH'
import sys
home, version = sys.argv[1:]
bun = open(f"{home}/fetch/package/bin/bun", "rb").read()
loader = b"/lib/ld-musl-x86_64.so.1\0"
own = f"{home}/lib/ld.so".encode()
assert bun.count(loader) >= 1 and len(own) < len(loader)
at = bun.index(loader)
patched = bun[:at] + own.ljust(len(loader), b"\0") + bun[at + len(loader):]
open(f"{home}/bun-{version}", "wb").write(patched)
PATCH
  chmod +x "$home/bun-$version"
  rm -rf "$home/fetch"
fi

"$home/bun-$version" -e 'console.log("Bun", Bun.version, "for musl")'
if [ $# -eq 0 ]; then
  others='^test/(docs|package|bench|tidy|map)/'
  mapfile -t files < <(find test -name '*.test.ts' | grep -vE "$others" | sort)
  set -- "${files[@]}"
fi
exec scripts/run-suites.sh "$home/log" 180 6144 "$@" -- "$home/bun-$version"
