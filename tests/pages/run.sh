#!/usr/bin/env bash
# Every page of ours in Debian's Chromium (pages.mjs), the login in a window of its own through a real gateway (login.mjs), and gitspaces
# that are started by opening them (wake.mjs).
# What is missing is installed (as root on Debian) or named. Screenshots and logs stay in target/pages.
#
# CDE_GATEWAY_BIN: the program; else the newest build, else one is made.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/pages
rm -rf "$out" && mkdir -p "$out/answers" "$out/shots" "$out/home"

.ci/need node npm chromium certutil python3
program=${CDE_GATEWAY_BIN:-}
if [ -z "$program" ]; then
  cargo build --locked --quiet --bin cde-gateway
  program=${CARGO_TARGET_DIR:-target}/debug/cde-gateway
fi
CDE_PAGES=$out/answers cargo test --locked --quiet --lib -- --ignored --exact gateway::rejection::tests::pages_for_the_browser >"$out/answers.log" 2>&1 ||
  { cat "$out/answers.log" >&2; exit 1; }

# The packages and the helpers are those of the other browser tests.
(cd tests/browser && npm ci --no-audit --no-fund --loglevel=error)
node "$here/pages.mjs" "$out/answers" "$out/shots"
node "$here/login.mjs" "$(realpath "$program")" "$out"
node "$here/wake.mjs" "$(realpath "$program")" "$out"
echo "screenshots and logs: $out"
