#!/bin/bash
# Shows that the gateway lets go of clients whose machine has vanished without a word: one whose stream rests and one that is
# being sent to. Usage, as root: tests/balancers/vanished.sh [PROGRAM] [DEAD_PEER] (default 6s; the configuration's is 60s).
# Needs ip with network namespaces, curl, python3. Ports 18500, 18501, 18504; nothing is left behind.
set -euo pipefail
program=$(realpath "${1:-target/debug/cde-gateway}")
dead_peer=${2:-6s}
work=$(mktemp -d)
pids=()
finish() {
  kill "${pids[@]}" 2>/dev/null || true
  ip link del vanished0 2>/dev/null || true
  ip netns del vanished 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
cd "$work"

ip netns add vanished
ip link add vanished0 type veth peer name vanished1 netns vanished
ip addr add 10.77.0.1/24 dev vanished0
ip link set vanished0 up
ip -n vanished addr add 10.77.0.2/24 dev vanished1
ip -n vanished link set vanished1 up

cat > config.toml <<END
roles = ["gateway"]
state_dir = "state"
[gateway]
admin = { address = "127.0.0.1:18500" }
access_log = { path = "access.log" }
listen = [{ address = "10.77.0.1:18501", protocol = "http" }]
timeouts = { dead_peer = "$dead_peer" }
[[route]]
gitspace = "app-a1b2c3"
upstream = "http://127.0.0.1:18504"
visibility = "public"
END

cat > upstream.py <<'END'
import socket, threading, time
def serve(stream):
    request = stream.recv(65536)
    stream.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")
    try:
        while b"/busy" in request:
            time.sleep(1)
            stream.sendall(b"2\r\nhi\r\n")
        stream.recv(1)
    except OSError:
        pass
listener = socket.create_server(("127.0.0.1", 18504))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
END

"$program" run --config config.toml > gateway.log 2>&1 & pids+=($!)
python3 upstream.py & pids+=($!)
for _ in $(seq 100); do curl -sf http://127.0.0.1:18500/readyz > /dev/null && break; sleep 0.1; done
until (: <> /dev/tcp/127.0.0.1/18504) 2> /dev/null; do sleep 0.1; done
for path in /idle /busy; do
  ip netns exec vanished curl -sN -o ".$(basename $path)" -H "Host: app-a1b2c3.gitspaces.localhost" "http://10.77.0.1:18501$path" & pids+=($!)
done
until [ -s .idle ] && [ -s .busy ]; do sleep 0.1; done
ip -n vanished link set vanished1 down
start=$(date +%s)
until [ "$(grep -c '"reason":"client-gone"' access.log)" = 2 ]; do
  [ $(($(date +%s) - start)) -lt 120 ] || { echo "FAIL  not found within 120 s"; tail -n 5 gateway.log access.log; exit 1; }
  sleep 0.2
done
echo "ok    both found within $(($(date +%s) - start)) s (dead_peer = $dead_peer)"
