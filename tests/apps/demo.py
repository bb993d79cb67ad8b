"""The demonstration application: which worker and generation answers, JSON, a stream, echoes."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>pounce</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; }}
  dt {{ color: #666 }} dd {{ font: 1.4rem ui-monospace, monospace; margin: 0 0 .6rem }}
  pre {{ background: #f4f4f4; padding: 1rem }}
</style>
<h1>pounce serves this page</h1>
<dl>
  <dt>worker</dt><dd id="worker">{worker}</dd>
  <dt>generation</dt><dd id="generation">{generation}</dd>
  <dt>process</dt><dd>{pid}, thread {thread}</dd>
  <dt>requests answered by this worker</dt><dd>{requests}</dd>
</dl>
<p>Also here: <a href="/json">JSON</a>, <a href="/stream">a stream</a>,
<a href="/echo">a WebSocket</a>.</p>
<pre id="stream"></pre>
<script>
  const out = document.getElementById("stream");
  fetch("/stream").then(async (response) => {{
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {{
      const {{ value, done }} = await reader.read();
      if (done) break;
      out.textContent += value;
    }}
  }});
</script>
"""


ECHO = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>pounce: echo</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; }
  #log { background: #f4f4f4; padding: 1rem; min-height: 6rem; white-space: pre-wrap }
</style>
<h1>pounce echoes</h1>
<form><input id="text" value="Grüße" autofocus> <button>Send</button></form>
<div id="log"></div>
<script>
  const log = document.getElementById("log"), text = document.getElementById("text");
  const say = (line) => { log.textContent += line + "\\n"; };
  const socket = new WebSocket(location.href.replace(/^http(.*)echo$/, "ws$1ws"));
  socket.onopen = () => { say("open"); socket.send(text.value); };
  socket.onmessage = ({ data }) => say("echo: " + data);
  socket.onclose = ({ code, reason }) => say("closed: " + code + " " + reason);
  document.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    socket.send(text.value);
  };
</script>
"""


class Demo:
    """Counts, in each worker, what it answers."""

    def __init__(self) -> None:
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
        elif scope["type"] == "http":
            self.requests += 1
            await self.route(scope, send)
        elif scope["path"] == "/ws":
            await echo(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["started"] = time.time()
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def route(self, scope: Scope, send: Send) -> None:
        match scope["path"]:
            case "/":
                page = PAGE.format(**self.about(scope))
                await respond(send, 200, b"text/html; charset=utf-8", page.encode())
            case "/json":
                body = json.dumps(self.about(scope)).encode()
                await respond(send, 200, b"application/json", body)
            case "/stream":
                await stream(send)
            case "/echo":
                await respond(send, 200, b"text/html; charset=utf-8", ECHO.encode())
            case _:
                await respond(send, 404, b"text/plain; charset=utf-8", b"There is nothing here.\n")

    def about(self, scope: Scope) -> dict[str, Any]:
        service = scope.get("extensions", {}).get("pounce", {})
        return {
            "worker": service.get("worker", "?"),
            "generation": service.get("generation", "?"),
            "pid": os.getpid(),
            "thread": threading.get_native_id(),
            "requests": self.requests,
            "started": scope["state"]["started"],
        }


async def respond(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(1, 11):
        line = b"line %d of 10\n" % number
        await send({"type": "http.response.body", "body": line, "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body"})


async def echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


app = Demo()
