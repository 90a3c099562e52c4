// One sign-in (code flow with PKCE) through the provider's own pages:  node sign-in.mjs ISSUER LOGIN
// Prints the ID token.
import assert from "node:assert/strict";
import crypto from "node:crypto";

const [issuer, login] = process.argv.slice(2);
const callback = "http://127.0.0.1:1/callback";
const jar = new Map();

async function go(url, form) {
  const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
  const body = form && new URLSearchParams(form);
  const response = await fetch(url, { redirect: "manual", method: form ? "POST" : "GET", body, headers: { cookie } });
  for (const line of response.headers.getSetCookie()) {
    const [pair] = line.split(";");
    const at = pair.indexOf("=");
    jar.set(pair.slice(0, at), pair.slice(at + 1));
  }
  return response;
}

const random = () => crypto.randomBytes(32).toString("base64url");
const described = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
const [verifier, state] = [random(), random()];
const start = new URL(described.authorization_endpoint);
start.search = new URLSearchParams({
  client_id: "gitspaces",
  response_type: "code",
  redirect_uri: callback,
  scope: "openid",
  state,
  code_challenge: crypto.createHash("sha256").update(verifier).digest("base64url"),
  code_challenge_method: "S256",
});

let url = start.href;
for (let step = 0; !url.startsWith(callback); step += 1) {
  assert.ok(step < 20, "the sign-in does not end");
  let response = await go(url);
  if (response.status === 200) {
    const page = await response.text();
    const action = page.match(/<form[^>]*action="([^"]+)"/)[1];
    const prompt = page.match(/name="prompt" value="(\w+)"/)[1];
    const form = prompt === "login" ? { prompt, login, password: "any" } : { prompt };
    response = await go(new URL(action, url), form);
  }
  assert.ok(response.headers.get("location"), `status ${response.status} at ${url}`);
  url = new URL(response.headers.get("location"), url).href;
}
const back = new URL(url).searchParams;
assert.equal(back.get("state"), state);
const exchanged = await fetch(described.token_endpoint, {
  method: "POST",
  headers: { authorization: `Basic ${btoa("gitspaces:of-this-test-only")}` },
  body: new URLSearchParams({ grant_type: "authorization_code", code: back.get("code"), redirect_uri: callback, code_verifier: verifier }),
});
const tokens = await exchanged.json();
assert.equal(exchanged.status, 200, JSON.stringify(tokens));
console.log(tokens.id_token);
