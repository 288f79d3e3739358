#!/bin/sh
# Makes node_modules/.bin/bun usable. The npm package `bun` installs its binary with a script that
# npm may not run (--ignore-scripts, or a policy for install scripts); then this runs it.
set -eu
cd "$(dirname "$0")/.."
if ! node_modules/.bin/bun --version >/dev/null 2>&1; then
  echo "Putting the bun binary in place: node node_modules/bun/install.js"
  node node_modules/bun/install.js
fi
