#!/usr/bin/env bash
# The browser tests against `cde-gateway demo`: the built-in terminal, then code-server, in Debian's Chromium, with the
# development CA in a profile of its own. What is missing is installed (as root on Debian) or named.
#
# CDE_GATEWAY_BIN: the program; else the newest build, else one is made. CDE_CI_CACHE: keeps code-server between runs.
# Screenshots and logs stay in target/browser. Not here: what the tests do; see terminal.mjs and code-server.mjs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$target/browser
shots=$out/shots
rm -rf "$out" && mkdir -p "$shots"

.ci/need node npm chromium certutil rg g++ make python3

program=${CDE_GATEWAY_BIN:-}
if [ -z "$program" ]; then
  cargo build --locked --quiet --bin cde-gateway
  program=$target/debug/cde-gateway
fi

(cd "$here" && npm ci --no-audit --no-fund --loglevel=error)
code_server=${CDE_CI_CACHE:-$target}/code-server
if [ ! -x "$code_server/bin/code-server" ]; then
  echo "installing code-server into $code_server"
  "$here/install-code-server.sh" "$code_server"
fi

demo_pid=
stop() {
  [ -n "$demo_pid" ] || return 0
  kill -INT "$demo_pid" 2>/dev/null || true
  for _ in $(seq 150); do
    kill -0 "$demo_pid" 2>/dev/null || { demo_pid=; return 0; }
    sleep 0.1
  done
  echo "the demo did not stop within 15 s of SIGINT" >&2
  kill -KILL "$demo_pid"
  demo_pid=
  return 1
}
trap stop EXIT

# Starts the demo and sets url, folder and ca; its log is $out/$1.log.
start() {
  local name=$1; shift
  # Job control gives the demo the default SIGINT, which background jobs of a script otherwise ignore.
  set -m
  CDE_CODE_SERVER=$code_server/bin/code-server "$program" demo --json "$@" >"$out/$name.json" 2>"$out/$name.log" </dev/null &
  demo_pid=$!
  set +m
  for _ in $(seq 600); do
    if [ -s "$out/$name.json" ] && field "$name" url >/dev/null 2>&1; then
      url=$(field "$name" url); ca=$(field "$name" ca)
      return 0
    fi
    kill -0 "$demo_pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "the demo did not become ready; its log:" >&2
  tail -n 40 "$out/$name.log" >&2
  return 1
}

field() { node -e 'const v = JSON.parse(require("fs").readFileSync(process.argv[1]))[process.argv[2]]; if (!v) process.exit(1); console.log(v)' "$out/$1.json" "$2"; }

# One test: its demo, its browser profile, its script.
run() {
  local name=$1 outcome=ok; shift
  export HOME=$out/home-$name
  mkdir -p "$HOME"
  "$here/trust-ca.sh" "$HOME" "$ca"
  (cd "$here" && node "$name.mjs" "$url" "$@" --shots "$shots") || outcome=FAILED
  stop || outcome=FAILED
  echo "test browser::${name//-/_} ... $outcome"
  if [ $outcome = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

passed=0 failed=0 home=$HOME
if start terminal; then run terminal; else stop || true; failed=$((failed + 1)); echo "test browser::terminal ... FAILED"; fi
export HOME=$home
if start code-server --ide code-server; then
  # The folder that the page opens is the clone in the instance.
  clone=$(find "$(field code-server state_dir)/instances" -maxdepth 4 -name .git -print -quit)
  run code-server "${clone%/.git}" "$(field code-server control_plane)/v1/gitspaces/$(field code-server gitspace)" "$(field code-server user_token_file)"
else
  stop || true; failed=$((failed + 1)); echo "test browser::code_server ... FAILED"
fi

echo "screenshots and logs: $out"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
