#!/usr/bin/env bash
# install-code-server.sh DIR [VERSION]: code-server from npm; leaves the program DIR/bin/code-server.
#
# Not a plain `npm install`: code-server's own postinstall refuses root, wants one exact Node major and downloads a
# ripgrep. So: no install scripts, then only the native modules that the server loads, and the system's ripgrep.
# Needs node, npm, rg, g++, make, python3. The compiler's words are in DIR/build.log.
set -euo pipefail
dir=${1:?usage: install-code-server.sh DIR [VERSION]}
version=${2:-4.100.3} # the newest that runs on Node 20
ripgrep=$(command -v rg) || { echo "install-code-server.sh: rg is missing; install ripgrep" >&2; exit 1; }
mkdir -p "$dir"
cd "$dir"
dir=$PWD
log=$dir/build.log
quiet=(--no-fund --no-audit --loglevel=error)

fail() { echo "install-code-server.sh: $1 failed; the end of $log:" >&2; tail -n 20 "$log" >&2; exit 1; }

[ -f package.json ] || echo '{"private":true}' >package.json
npm install --ignore-scripts "${quiet[@]}" "code-server@$version"
package=$dir/node_modules/code-server
npm rebuild --foreground-scripts --loglevel=error argon2 >"$log" 2>&1 || fail "building argon2"

cd "$package/lib/vscode"
npm install --omit=dev --ignore-scripts "${quiet[@]}"
# npm_config_yes: node-pty builds through npx, which otherwise stops at a question.
npm_config_yes=true npm rebuild --foreground-scripts --loglevel=error node-pty @vscode/spdlog >>"$log" 2>&1 \
  || fail "building node-pty and spdlog"
mkdir -p node_modules/@vscode/ripgrep/bin
ln -sf "$ripgrep" node_modules/@vscode/ripgrep/bin/rg
ln -sf code-linux.sh bin/remote-cli/code-server
ln -sf browser-linux.sh bin/helpers/browser.sh
(cd extensions && npm install --omit=dev --ignore-scripts "${quiet[@]}")

# Written last: its presence says that the installation is whole.
mkdir -p "$dir/bin"
printf '#!/bin/sh\nexec %q %q "$@"\n' "$(command -v node)" "$package/out/node/entry.js" >"$dir/bin/code-server.new"
chmod +x "$dir/bin/code-server.new"
CODE_SERVER_CONFIG=$dir/config.yaml "$dir/bin/code-server.new" --version
mv "$dir/bin/code-server.new" "$dir/bin/code-server"
