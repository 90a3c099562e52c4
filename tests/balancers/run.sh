#!/bin/bash
# Shows the gateway behind a real HAProxy: PROXY protocol 1 and 2 in front of the https and the http listener, and HTTP/2 in
# the clear from a proxy that ends TLS and is trusted. Usage: tests/balancers/run.sh [PROGRAM]
# Needs haproxy, curl with HTTP/2, python3. Ports 18400 to 18417 on loopback; nothing is left behind.
set -euo pipefail
program=$(realpath "${1:-target/debug/cde-gateway}")
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"

cat > config.toml <<END
roles = ["gateway"]
state_dir = "state"
[gateway]
admin = { address = "127.0.0.1:18400" }
access_log = { path = "access.log" }
listen = [
  { address = "127.0.0.1:18401", protocol = "https", proxy_protocol_from = ["127.0.0.0/8"] },
  { address = "127.0.0.1:18402", protocol = "http", proxy_protocol_from = ["127.0.0.0/8"] },
  { address = "127.0.0.1:18403", protocol = "http", redirect_to_https = true, trusted_proxies = ["127.0.0.1/32"] },
]
[[route]]
gitspace = "app-a1b2c3"
upstream = "http://127.0.0.1:18404"
visibility = "public"
END

cat > upstream.py <<'END'
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        names = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "x-request-id")
        body = " ".join(str(self.headers[name]) for name in names).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", 18404), Echo).serve_forever()
END

cat > haproxy.cfg <<'END'
defaults
  mode tcp
  timeout connect 2s
  timeout client 10s
  timeout server 10s
listen https_v1
  bind 127.0.0.1:18411
  server gateway 127.0.0.1:18401 send-proxy
listen https_v2
  bind 127.0.0.1:18412
  server gateway 127.0.0.1:18401 send-proxy-v2 proxy-v2-options crc32c,unique-id,authority
  unique-id-format %[uuid()]
listen http_v1
  bind 127.0.0.1:18413
  server gateway 127.0.0.1:18402 send-proxy
listen http_v2
  bind 127.0.0.1:18414
  server gateway 127.0.0.1:18402 send-proxy-v2
listen unannounced
  bind 127.0.0.1:18415
  server gateway 127.0.0.1:18402
listen ends_tls
  mode http
  bind 127.0.0.1:18416 ssl crt haproxy.pem alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Forwarded-Port 443
  http-request set-header X-Request-Id %[uuid()]
  option forwardfor
  server gateway 127.0.0.1:18403 proto h2
listen ends_nothing
  mode http
  bind 127.0.0.1:18417
  http-request set-header X-Forwarded-Proto http
  option forwardfor
  server gateway 127.0.0.1:18403
END

"$program" run --config config.toml > gateway.log 2>&1 & pids+=($!)
python3 upstream.py & pids+=($!)
for _ in $(seq 100); do curl -sf http://127.0.0.1:18400/readyz > /dev/null && break; sleep 0.1; done
cat state/dev/cert.pem state/dev/key.pem > haproxy.pem
haproxy -f haproxy.cfg -db > haproxy.log 2>&1 & pids+=($!)
for _ in $(seq 100); do curl -so /dev/null http://127.0.0.1:18417/ && break; sleep 0.1; done

host=app-a1b2c3.gitspaces.localhost
failed=0
# What the client at 127.0.0.77 gets through a port of HAProxy.
check() { # WHAT EXPECTED CURL-ARGUMENTS...
  local what=$1 expected=$2 found
  shift 2
  found=$(curl -s --max-time 5 --interface 127.0.0.77 --cacert state/dev/ca.pem "$@" || true)
  if [[ $found =~ ^$expected$ ]]; then
    echo "ok    $what: $found"
  else
    echo "FAIL  $what: got '$found', expected '$expected'"
    failed=1
  fi
}
at() { echo "--connect-to ::127.0.0.1:$1"; }
id='[0-9a-f-]+'
check "PROXY v1, https" "127\.0\.0\.77 https 18411 $id" $(at 18411) "https://$host:18411/"
check "PROXY v1, https, HTTP/1.1" "127\.0\.0\.77 https 18411 $id" --http1.1 $(at 18411) "https://$host:18411/"
check "PROXY v2 with checksum and additions, https" "127\.0\.0\.77 https 18412 $id" $(at 18412) "https://$host:18412/"
check "PROXY v1, http" "127\.0\.0\.77 http 18413 $id" $(at 18413) "http://$host:18413/"
check "PROXY v2, http" "127\.0\.0\.77 http 18414 $id" $(at 18414) "http://$host:18414/"
check "PROXY v2, HTTP/2 in the clear" "127\.0\.0\.77 http 18414 $id" --http2-prior-knowledge $(at 18414) "http://$host:18414/"
check "no PROXY header" "" $(at 18415) "http://$host:18415/"
check "TLS ends at a trusted proxy, HTTP/2 behind it" "127\.0\.0\.77 https 443 [0-9a-f]{8}-[0-9a-f-]{27}" $(at 18416) "https://$host/"
check "what a client claims does not pass a trusted proxy" "127\.0\.0\.77 https 443 $id" -H "X-Forwarded-For: 6.6.6.6" $(at 18416) "https://$host/"
check "http at a trusted proxy is redirected" "308 https://$host/a\?b" -o /dev/null -w '%{http_code} %{redirect_url}' $(at 18417) "http://$host/a?b"
grep -o '"client":"[^"]*"' access.log | sort | uniq -c
exit $failed
