#!/usr/bin/env bash
# trust-ca.sh HOME CA.pem: Chromium, run with this HOME, trusts the CA, and still checks every certificate.
# Needs certutil (Debian: libnss3-tools). Touches only HOME/.pki.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: trust-ca.sh HOME CA.pem" >&2; exit 2; }
store=$1/.pki/nssdb
[ -r "$2" ] || { echo "trust-ca.sh: cannot read the CA certificate $2" >&2; exit 1; }
mkdir -p "$store"
[ -f "$store/cert9.db" ] || certutil -N -d "sql:$store" --empty-password
certutil -D -d "sql:$store" -n cde-gateway-development-ca 2>/dev/null || true # a CA of an earlier run
certutil -A -d "sql:$store" -n cde-gateway-development-ca -t C,, -i "$2"
