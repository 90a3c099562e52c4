#!/usr/bin/env bash
# Every page of ours in Debian's Chromium (pages.mjs).
# What is missing is installed (as root on Debian) or named. Screenshots and logs stay in target/pages.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/pages
rm -rf "$out" && mkdir -p "$out/answers" "$out/shots" "$out/home"

.ci/need node npm chromium
CDE_PAGES=$out/answers cargo test --locked --quiet --lib -- --ignored --exact gateway::rejection::tests::pages_for_the_browser >"$out/answers.log" 2>&1 ||
  { cat "$out/answers.log" >&2; exit 1; }

# The packages and the helpers are those of the other browser tests.
(cd tests/browser && npm ci --no-audit --no-fund --loglevel=error)
node "$here/pages.mjs" "$out/answers" "$out/shots"
echo "screenshots and logs: $out"
