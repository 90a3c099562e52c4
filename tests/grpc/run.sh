#!/usr/bin/env bash
# Python's gRPC library through a gateway to a server in the clear (h2c): unary, streams, both ways, statuses, deadlines, cancel.
#   tests/grpc/run.sh            needs cargo, python3 with venv, and pip's index; PYTHON=… names a python that has grpcio already,
#                                CDE_GATEWAY=… a program that is built already
# Ends with 0 when every check passed. Leaves nothing behind but the virtual environment in $TMPDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
binary=${CDE_GATEWAY:-}
if [ -z "$binary" ]; then
  cargo build --quiet
  binary=${CARGO_TARGET_DIR:-target}/debug/cde-gateway
fi
work=$(mktemp -d)
pids=()
end() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap end EXIT

python=${PYTHON:-}
if [ -z "$python" ]; then
  venv=${TMPDIR:-/tmp}/cde-gateway-grpc
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check grpcio
  python=$venv/bin/python
fi

"$python" "$here/server.py" >"$work/server.port" 2>"$work/server.log" &
pids+=($!)
for _ in $(seq 100); do [ -s "$work/server.port" ] && break; sleep 0.1; done
upstream=$(cat "$work/server.port")

port=$(tests/harness/ports.py)
head -c 48 /dev/urandom | base64 >"$work/secret"
cat >"$work/config.toml" <<EOF
roles = ["gateway"]
state_dir = "state"
[gateway]
listen = [{ address = "127.0.0.1:$port", protocol = "https" }]
[gateway.admin]
address = "127.0.0.1:0"
[gateway.access_log]
path = "access.log"
[[gateway.issuer]]
issuer = "https://issuer.test"
[[gateway.issuer.key]]
algorithm = "HS256"
secret_file = "secret"
[[route]]
gitspace = "grpc-a1b2c3"
upstream = "h2c://127.0.0.1:$upstream"
owner = "alice"
EOF
"$binary" run --config "$work/config.toml" 2>"$work/gateway.log" &
pids+=($!)
for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done

mint() { "$binary" token mint --key "$work/secret" --algorithm HS256 --issuer https://issuer.test --subject "$1"; }
"$python" "$here/client.py" grpc-a1b2c3.gitspaces.localhost "$port" "$work/state/dev/ca.pem" "$(mint alice)" "$(mint mallory)" || {
  tail -n 5 "$work/gateway.log" "$work/access.log" "$work/server.log"
  exit 1
}
