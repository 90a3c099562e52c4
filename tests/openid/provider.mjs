// An OpenID provider:  node provider.mjs PORT STATE_FILE
//
// One client, any login name. SIGHUP puts a new signing key in front and keeps the old ones published; SIGUSR2 drops all but the
// newest. Its keys lie in STATE_FILE, so that it is the same provider after it was down.
import fs from "node:fs";
import http from "node:http";

import { exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";

const [port, stateFile] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

let keys = fs.existsSync(stateFile) ? JSON.parse(fs.readFileSync(stateFile)) : [await newKey(1)];
let answer = serve();

async function newKey(number) {
  const { privateKey } = await generateKeyPair("RS256", { extractable: true });
  return { ...(await exportJWK(privateKey)), use: "sig", alg: "RS256", kid: `key-${number}` };
}

function serve() {
  fs.writeFileSync(stateFile, JSON.stringify(keys), { mode: 0o600 });
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [
      {
        client_id: "gitspaces",
        client_secret: "of-this-test-only",
        redirect_uris: ["http://127.0.0.1:1/callback"],
        grant_types: ["authorization_code"],
        response_types: ["code"],
      },
    ],
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    cookies: { keys: ["of this test only"] },
    pkce: { required: () => true },
    features: { devInteractions: { enabled: true } },
  });
  return provider.callback();
}

process.on("SIGHUP", async () => {
  const number = Number(keys[0].kid.slice(4)) + 1;
  keys = [await newKey(number), ...keys];
  answer = serve();
  console.log("published", keys.map((key) => key.kid).join(" "));
});
process.on("SIGUSR2", () => {
  keys = keys.slice(0, 1);
  answer = serve();
  console.log("published", keys.map((key) => key.kid).join(" "));
});
http.createServer((request, response) => answer(request, response)).listen(Number(port), "127.0.0.1", () => console.log("ready"));
