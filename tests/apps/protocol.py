"""A page that asks which version of HTTP it is served by, until that is 3."""

from pounce.application.types import Receive, Scope, Send

PAGE = b"""<!doctype html>
<title>Which HTTP?</title>
<style>body { font: 2em sans-serif; margin: 2em }</style>
<h1>Served by pounce</h1>
<div id="log">asking</div>
<script>
async function ask() {
  for (let number = 0; number < 100; number++) {
    const url = new URL(`/version?${number}`, location).href;
    const version = await (await fetch(url)).text();
    const [entry] = performance.getEntriesByName(url);
    document.getElementById("log").textContent =
      `${entry.nextHopProtocol}: HTTP/${version}, after ${number} requests by other means`;
    if (entry.nextHopProtocol === "h3") return;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}
ask();
</script>
"""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    asked = scope["path"] == "/version"
    kind = b"text/plain" if asked else b"text/html"
    headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = scope["http_version"].encode() if asked else PAGE
    await send({"type": "http.response.body", "body": body})
