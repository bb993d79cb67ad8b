"""Proxies as child processes, each with a configuration of its own, on the loopback."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pounce.net.address import Address
from tests.fronts.upstream import Upstream
from tests.service import Wire, free_port, wait_until

STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

# Administrators' commands are not on everybody's PATH.
_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin"


class Front:
    """A proxy that runs; each of its *ports* has a name and does one thing.

    *log* has a line for each request that it is done with: method, target and status.
    """

    def __init__(self, name: str, log: Path, ports: dict[str, int]) -> None:
        self.name = name
        self.ports = ports
        self.log = log

    def __getitem__(self, port: str) -> Address:
        return Address.parse(f"127.0.0.1:{self.ports[port]}")


NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {here}/pid;
error_log {here}/error.log info;
load_module {module};
events {{ worker_connections 512; }}
http {{
    log_format requests escape=none '$request_method $request_uri $upstream_status';
    access_log {here}/requests.log requests;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    client_max_body_size 0;
    keepalive_requests 1000000;
    keepalive_timeout 300;
    upstream tcp {{ server {tcp}; keepalive 32; keepalive_requests 1000000; }}
    upstream unix {{ server unix:{unix}; keepalive 32; keepalive_requests 1000000; }}
    map $http_upgrade $hop {{ default upgrade; '' ''; }}
    proxy_http_version 1.1;
    proxy_set_header Connection $hop;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host '';
    proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header X-Forwarded-Prefix '';
    server {{ listen 127.0.0.1:{port[tcp]}; location / {{ proxy_pass http://tcp; }} }}
    server {{ listen 127.0.0.1:{port[unix]}; location / {{ proxy_pass http://unix; }} }}
    server {{
        listen 127.0.0.1:{port[tls]} ssl;
        ssl_certificate {pem};
        ssl_certificate_key {pem};
        location / {{ proxy_pass http://tcp; }}
    }}
    server {{
        # As nginx is where nothing says otherwise: HTTP/1.0, and a connection a request.
        listen 127.0.0.1:{port[old]};
        location / {{
            proxy_pass http://{tcp};
            proxy_http_version 1.0;
            proxy_set_header Connection close;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host '';
            proxy_set_header X-Forwarded-Port $server_port;
            proxy_set_header X-Forwarded-Prefix '';
        }}
    }}
    server {{
        # As it comes and as much as comes, and nothing said of it.
        listen 127.0.0.1:{port[bare]};
        proxy_request_buffering off;
        proxy_buffering off;
        ignore_invalid_headers off;
        underscores_in_headers on;
        merge_slashes off;
        location / {{
            proxy_pass http://tcp;
            proxy_http_version 1.1;
            proxy_set_header Connection $hop;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $http_host;
        }}
    }}
}}
stream {{
    server {{ listen 127.0.0.1:{port[stream]}; proxy_pass unix:{proxied}; proxy_protocol on; }}
}}
"""

HAPROXY = """
global
    maxconn 500
    nbthread 1
    tune.http.logurilen 20000
    log stdout len 65535 format raw local0
defaults
    mode http
    log global
    log-format "%HM %HU %ST"
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    http-reuse always
listen tcp
    bind fd@{port[tcp]}
    option forwardfor
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request del-header X-Forwarded-Host
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request del-header X-Forwarded-Prefix
    server pounce {tcp}
listen tls
    bind fd@{port[tls]} ssl crt {pem}
    option forwardfor
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request del-header X-Forwarded-Host
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request del-header X-Forwarded-Prefix
    server pounce {tcp}
listen unix
    bind fd@{port[unix]}
    option forwardfor
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request del-header X-Forwarded-Host
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request del-header X-Forwarded-Prefix
    server pounce unix@{unix}
listen forwarded
    bind fd@{port[forwarded]}
    http-request del-header X-Forwarded- -m beg
.if version_atleast(2.8)
    option forwarded proto for for_port
.else
    http-request add-header Forwarded for=\\"%[src]:%[src_port]\\";proto=%[ssl_fc,iif(https,http)]
.endif
    server pounce {tcp}
listen http-v2
    bind fd@{port[http-v2]}
    server pounce unix@{proxied} send-proxy-v2
listen bare
    bind fd@{port[bare]}
    option accept-invalid-http-request
    server pounce {tcp}
listen strict
    bind fd@{port[strict]}
    server pounce {tcp}
defaults
    mode tcp
    timeout connect 5s
    timeout client 300s
    timeout server 300s
listen v1
    bind fd@{port[v1]}
    server pounce unix@{proxied} send-proxy check inter 200ms
listen v2
    bind fd@{port[v2]}
    server pounce unix@{proxied} send-proxy-v2 proxy-v2-options crc32c,unique-id
listen v2-ssl
    bind fd@{port[v2-ssl]} ssl crt {pem}
    server pounce unix@{proxied} send-proxy-v2-ssl-cn
listen through
    bind fd@{port[through]}
    server pounce unix@{secure} send-proxy-v2
"""


@contextmanager
def nginx(directory: Path, upstream: Upstream) -> Iterator[Front]:
    """An nginx in *directory*, which it gets for itself."""
    directory.mkdir()
    names = re.findall(r"listen 127.0.0.1:{port\[(.*?)\]}", NGINX)
    ports = {name: free_port() for name in names}
    file = directory / "nginx.conf"
    about = vars(upstream)
    file.write_text(NGINX.format(here=directory, module=STREAM_MODULE, port=ports, **about))
    with running([command("nginx"), "-c", str(file)], directory / "output", []):
        front = Front("nginx", directory / "requests.log", ports)
        wait_until(lambda: listens(front["stream"]), "nginx listens")
        yield front


@contextmanager
def haproxy(directory: Path, upstream: Upstream) -> Iterator[Front]:
    """An HAProxy in *directory*, which it gets for itself."""
    directory.mkdir()
    names = re.findall(r"fd@{port\[(.*?)\]}", HAPROXY)
    with ExitStack() as stack:
        listeners = {
            name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in names
        }
        descriptors = {name: listener.fileno() for name, listener in listeners.items()}
        file = directory / "haproxy.cfg"
        file.write_text(HAPROXY.format(port=descriptors, **vars(upstream)))
        log = directory / "output"
        arguments = [command("haproxy"), "-db", "-f", str(file)]
        stack.enter_context(running(arguments, log, list(descriptors.values())))
        yield Front(
            "haproxy", log, {name: each.getsockname()[1] for name, each in listeners.items()}
        )


def command(name: str) -> str:
    """The path of a program that an administrator's PATH has."""
    found = shutil.which(name) or shutil.which(name, path=_PATH)
    if found is None:
        raise FileNotFoundError(f"no {name} here; `python -m tests.fronts.prepare` installs it")
    return found


@contextmanager
def running(arguments: list[str], output: Path, descriptors: list[int]) -> Iterator[None]:
    """A proxy's process, which inherits *descriptors*; AssertionError if it ends by itself."""
    with output.open("wb") as log:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=descriptors
        )
    try:
        yield
        assert process.poll() is None, f"it has ended:\n{output.read_text()}"
    finally:
        process.kill()
        process.wait()


def listens(address: Address) -> bool:
    """Whether a connection can be made."""
    try:
        Wire(address).sock.close()
    except ConnectionRefusedError:
        return False
    return True
