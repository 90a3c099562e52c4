#!/usr/bin/env bash
# Starts a gateway with certificates of a throw-away authority and lets sslscan, testssl and openssl look at it. Fails on a
# finding. For use by hand, about a minute: needs sslscan, testssl (Debian: testssl.sh) and openssl.
#
#   tests/tls/scan.sh [path of cde-gateway]      default: target/debug/cde-gateway
#
# Reports are left in the folder that is named at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
gateway=${1:-${CARGO_TARGET_DIR:-target}/debug/cde-gateway}
testssl=$(command -v testssl || command -v testssl.sh)
work=$(mktemp -d)
port=${SCAN_PORT:-18443} mtls=$((${SCAN_PORT:-18443} + 1)) host=app-a1b2c3.gitspaces.test
failed=0
finding() { echo "FINDING: $*"; failed=1; }

# An authority, a server's certificate (ECDSA and RSA: both have suites of their own in TLS 1.2), a client's.
cd "$work"
ca() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.pem" -days 30 -subj "/CN=$1" 2>/dev/null; }
issue() { # name, extension, new-key options
  local name=$1 extension=$2; shift 2
  openssl req -newkey "$@" -nodes -keyout "$name.key" -out "$name.csr" -subj "/CN=$name" 2>/dev/null
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 20 -out "$name.pem" \
    -extfile <(printf '%s\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n' "$extension") 2>/dev/null
  chmod 600 "$name.key"
}
ca ca
server=$'subjectAltName=DNS:*.gitspaces.test,DNS:gitspaces.test,IP:127.0.0.1\nextendedKeyUsage=serverAuth'
issue ecdsa "$server" ec -pkeyopt ec_paramgen_curve:P-256
issue rsa "$server" rsa:2048
issue client 'extendedKeyUsage=clientAuth' ec -pkeyopt ec_paramgen_curve:P-256
cat >config.toml <<END
roles = ["gateway"]
state_dir = "state"
[gateway]
domains = ["gitspaces.test"]
admin = { address = "127.0.0.1:$((port + 2))" }
access_log = { path = "" }
[gateway.limits]
new_connections_per_network = 10000
[[gateway.listen]]
address = "127.0.0.1:$port"
protocol = "https"
[[gateway.listen]]
address = "127.0.0.1:$mtls"
protocol = "https"
client_ca = "ca.pem"
[[gateway.certificate]]
chain = "ecdsa.pem"
key = "ecdsa.key"
[[gateway.certificate]]
chain = "rsa.pem"
key = "rsa.key"
END
cd - >/dev/null
"$gateway" run --config "$work/config.toml" 2>"$work/gateway.log" &
pid=$!
trap 'kill $pid 2>/dev/null || true; wait $pid 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  curl -sf "http://127.0.0.1:$((port + 2))/healthz" >/dev/null && break
  kill -0 $pid 2>/dev/null || { cat "$work/gateway.log"; exit 1; }
  sleep 0.1
done

echo "== sslscan"
sslscan --no-colour --sni-name=$host "127.0.0.1:$port" >"$work/sslscan.txt"
grep -E '^(SSLv[23]|TLSv1\.[01]) +enabled' "$work/sslscan.txt" && finding "an old protocol"
for version in 1.2 1.3; do grep -q "^TLSv$version *enabled" "$work/sslscan.txt" || finding "no TLS $version"; done
grep -E '^(Accepted|Preferred)' "$work/sslscan.txt" | grep -vE 'TLS_(AES|CHACHA20)|ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM|CHACHA20)' && finding "a weak suite"
grep -E 'Insecure|vulnerable to heartbleed' "$work/sslscan.txt" | grep -v 'not vulnerable' && finding "renegotiation or heartbleed"
grep -q 'Compression disabled' "$work/sslscan.txt" || grep -q 'OpenSSL version does not support compression' "$work/sslscan.txt" || finding "compression"

echo "== testssl (about a minute)"
# -s suites by kind, -p protocols, -P preference, -f forward secrecy, -U vulnerabilities
"$testssl" --quiet --color 0 --warnings off --openssl-timeout 5 --ip 127.0.0.1 --add-ca "$work/ca.pem" --jsonfile "$work/testssl.json" \
  -p -s -P -f -U "https://$host:$port" </dev/null >"$work/testssl.txt" 2>&1 || true
python3 - "$work/testssl.json" <<'END' || finding "testssl, see above"
import json, sys
rows = json.load(open(sys.argv[1]))
# engine_problem tells of the scanner's own openssl.
rows = [row for row in rows if row["id"] != "engine_problem"]
bad = [row for row in rows if row["severity"] not in ("OK", "INFO", "DEBUG")]
for row in bad:
    print(f'{row["severity"]:9} {row["id"]}: {row["finding"]}')
print(f"{len(rows)} checks, {len(bad)} findings")
sys.exit(bool(bad) or len(rows) < 40)
END

grep -q 'ECDHE-ECDSA-' "$work/testssl.txt" && grep -q 'ECDHE-RSA-' "$work/testssl.txt" || finding "one of the two certificates is not served"

echo "== openssl s_client"
s_client() { openssl s_client -connect "127.0.0.1:$1" -servername $host -CAfile "$work/ca.pem" -verify_return_error "${@:2}" </dev/null 2>&1; }
for version in 1_2 1_3; do s_client "$port" "-tls$version" | grep -q 'Verify return code: 0' || finding "no handshake in $version"; done
reused=$(s_client "$port" -tls1_2 -reconnect | grep -c '^Reused' || true)
[ "$reused" = 5 ] || finding "TLS 1.2 resumed $reused of 5"
(sleep 1; echo) | openssl s_client -connect "127.0.0.1:$port" -servername $host -tls1_3 -sess_out "$work/session" >/dev/null 2>&1
s_client "$port" -tls1_3 -sess_in "$work/session" | grep -q '^Reused' || finding "TLS 1.3 does not resume"
for version in 1_2 1_3; do
  ask() { (printf 'GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' $host; sleep 1) | openssl s_client -quiet -connect "127.0.0.1:$mtls" -servername $host "-tls$version" "$@" 2>&1 || true; }
  ask -cert "$work/client.pem" -key "$work/client.key" | grep -q '^HTTP/1.1 401' || finding "a client certificate is not accepted in $version"
  ask | grep -q '^HTTP/' && finding "no client certificate is accepted in $version"
done

[ $failed = 0 ] && echo "no finding" || echo "there are findings"
echo "reports: $work"
exit $failed
