"""The ASGI scope of a request over HTTP/3."""

from pounce.application.types import Scope
from pounce.asgi.scope import build_scope
from pounce.http.connections import ServerContext
from pounce.http3.fields import HTTP3Head
from pounce.http3.outlet import Path
from pounce.net.forwarded import Origin


def request_scope(context: ServerContext, path: Path, head: HTTP3Head) -> Scope:
    """The scope of the request that *head* begins, from the client at the other end of *path*."""
    origin = Origin(path.client, "https", head.headers, path.server, context.config.root_path)
    if head.forwarded and context.proxies.trusts_peer(path.client):
        origin = context.proxies.resolve(origin)
    return build_scope(
        head.method,
        head.target,
        origin.headers,
        "3",
        origin.scheme,
        origin.client,
        origin.server,
        origin.root_path,
        context.state,
        context.extensions,
    )
