// A tiny app behind a forwarded port. The gitspace says on which port to listen.
import { createServer } from "node:http";

const port = Number(process.env.GITSPACE_PORT_3000 ?? process.env.PORT ?? 3000);

const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

createServer((request, response) => {
  const user = escape(request.headers["x-gitspace-user"] ?? "somebody");
  const host = escape(request.headers.host ?? "");
  response.setHeader("content-type", "text/html; charset=utf-8");
  response.end(`<!doctype html>
<html lang="en">
<title>Port 3000</title>
<h1>Hello, ${user}</h1>
<p>This is the sample's app at <b>${host}</b>. It listens on port ${port} of its gitspace.</p>
</html>
`);
}).listen(port, "127.0.0.1", () => console.log(`listening on port ${port}`));
