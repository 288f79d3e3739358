#!/usr/bin/env bash
# Runs test files one by one with a given Bun, each with a limit of time and of memory, and prints a
# line for each and the totals. For Buns that are not the project's own: other libcs, emulators.
#
#   scripts/run-suites.sh LOG SECONDS MIB FILE... -- BUN [ARGUMENT...]
#
# LOG gets the output of all tests. A file that uses more than MIB of memory is ended. TEST_MS is
# the time limit of a single test, where the machine is an emulated one.
set -uo pipefail
log=$1 seconds=$2 mib=$3
shift 3
files=()
while [ "$1" != "--" ]; do
  files+=("$1")
  shift
done
shift
: >"$log"
passed=0 failed=0 skipped=0 ended=0

# Ends a process group once its resident memory is above the limit.
watch_memory() {
  while sleep 1; do
    kib=$(ps -o rss= -g "$1" | awk '{ sum += $1 } END { print sum + 0 }')
    [ "$kib" -gt 0 ] || return
    [ "$kib" -le $((mib * 1024)) ] || kill -KILL -- "-$1"
  done
}

count() { grep -oE "^ *[0-9]+ $1" "$2" | tail -1 | grep -oE '[0-9]+' || echo 0; }

one=$(mktemp)
for file in "${files[@]}"; do
  setsid timeout --kill-after=5 "$seconds" \
    "$@" test --timeout "${TEST_MS:-5000}" "./$file" >"$one" 2>&1 </dev/null &
  test_pid=$!
  watch_memory "$test_pid" &
  watch_pid=$!
  wait "$test_pid"
  code=$?
  kill "$watch_pid" 2>/dev/null
  { echo "== $file (exit code $code)"; cat "$one"; } >>"$log"
  pass=$(count pass "$one") fail=$(count fail "$one") skip=$(count skip "$one")
  echo "$file: $pass passed, $fail failed, $skip skipped, exit code $code"
  grep -E '^\(fail\)' "$one" | sort -u | sed 's/^/    /'
  passed=$((passed + pass)) failed=$((failed + fail)) skipped=$((skipped + skip))
  # Without a summary the runner itself was ended: by time, memory or a crash.
  grep -qE '^Ran [0-9]+ test' "$one" || ended=$((ended + 1))
done
rm -f "$one"
echo "total: $passed passed, $failed failed, $skipped skipped;" \
  "$ended of ${#files[@]} files did not end"
[ "$failed" -eq 0 ] && [ "$ended" -eq 0 ]
