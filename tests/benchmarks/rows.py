"""The rows of the table: what is asked of whom, and which ratios are wanted."""

from dataclasses import dataclass, field

from tests.benchmarks.generator import HTTP3, Echo, Load
from tests.benchmarks.servers import CORES, THREADS


@dataclass(frozen=True)
class Row:
    """*wanted* has, for each peer, what pounce's rate is to be in multiples of the peer's.

    The rate is that of a second of CPU time, unless *wall* says so. *free_threaded* rows need a
    free-threaded Python.
    """

    title: str
    load: Load | Echo | HTTP3
    wanted: dict[str, float]
    others: tuple[str, ...] = ()
    subject: str = "pounce"
    wall: bool = False
    free_threaded: bool = False
    servers: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "servers", (self.subject, *self.wanted, *self.others))


def _lua(*lines: str) -> str:
    return "\n".join(lines)


def _headers(**fields: str) -> list[str]:
    names = {name: name.replace("_", "-") for name in fields}
    return [f'wrk.headers["{names[name]}"] = [[{value}]]' for name, value in fields.items()]


BROWSER = _lua(
    *_headers(
        sec_ch_ua='"Chromium";v="130", "Not?A_Brand";v="99"',
        sec_ch_ua_mobile="?0",
        sec_ch_ua_platform='"Linux"',
        Upgrade_Insecure_Requests="1",
        User_Agent="Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
        " Chrome/130.0.0.0 Safari/537.36",
        Accept="text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
        Sec_Fetch_Site="same-origin",
        Sec_Fetch_Mode="navigate",
        Sec_Fetch_Dest="document",
        Referer="http://127.0.0.1/somewhere",
        Accept_Encoding="gzip, deflate, br, zstd",
        Accept_Language="en-GB,en;q=0.9",
        Cookie="session=0123456789abcdef0123456789abcdef; theme=dark",
    )
)


def varied(target: str, *fields: str, method: str = "GET", body: str = "") -> str:
    """Requests of which no two are the same, as a proxy passes them on for many users.

    Path, query, cookie, client and trace differ; "NUMBER" in *body* does too. The text is joined
    here, not by wrk.format(), which takes longer than most servers.
    """
    head = [
        f"{method} {target}/NUMBER?page=NUMBER HTTP/1.1",
        "Host: 127.0.0.1",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Cookie: theme=dark; session=3f0a5a70NUMBER",
        "X-Forwarded-For: CLIENT",
        "X-Forwarded-Proto: https",
        "traceparent: 00-4bf92f3577b34da6a3ce929dNUMBER-00f067aaNUMBER-01",
        *fields,
        *([f"Content-Length: {len(body) + body.count('NUMBER') * 2}"] if body else []),
    ]
    text = "".join(f"{line}\\r\\n" for line in head).replace('"', '\\"')
    text += "\\r\\n" + body.replace('"', '\\"')
    for name in ("NUMBER", "CLIENT"):
        text = text.replace(name, f'" .. {name.lower()} .. "')
    return _lua(
        "local count = 0",
        "function request()",
        "  count = count + 1",
        '  local number = string.format("%08x", count)',
        '  local client = "198.51." .. math.floor(count / 256) % 256 .. "." .. count % 256',
        f'  return "{text}"',
        "end",
    )


_JSON = "Content-Type: application/json"
_ITEM = '{"id": 7, "name": "NUMBER", "price": 12.5, "tags": ["a", "b"]}'
_TEXT = '{"text": "NUMBER' + "z" * 1003 + '"}'
POST = _lua(
    'wrk.method = "POST"',
    'wrk.headers["Content-Type"] = "application/json"',
    'wrk.body = \'{"text": "\' .. string.rep("z", 1011) .. \'"}\'',
)

# First what a server meets behind a proxy: no request is the same as another. Then what benchmarks
# usually send: the same request again and again, which pounce remembers.
ROWS = (
    Row(
        "GET, 13-byte body",
        Load("/hello", script=varied("/hello")),
        {},
        others=("uvicorn", "granian", "gunicorn", "hypercorn", "raw"),
    ),
    Row(
        "POST, 1 KB JSON, echoed",
        Load("/echo", script=varied("/echo", _JSON, method="POST", body=_TEXT)),
        {},
        others=("uvicorn", "granian"),
    ),
    Row(
        "Starlette JSON endpoint",
        Load("/json", script=varied("/json")),
        {},
        others=("uvicorn", "granian"),
    ),
    Row(
        "FastAPI, JSON body validated",
        Load("/items", script=varied("/items", _JSON, method="POST", body=_ITEM)),
        {},
        others=("uvicorn", "granian"),
    ),
    Row(
        f"WSGI, 13-byte body, {THREADS} threads",
        Load("/hello", script=varied("/hello")),
        {},
        others=("gunicorn gthread", "granian, wsgi"),
        subject="pounce, wsgi",
    ),
    Row(
        "access log in a file",
        Load("/hello", script=varied("/hello")),
        {},
        others=("uvicorn, log in a file",),
        subject="pounce, log in a file",
    ),
    Row(
        "repeated: GET, 13-byte body, 32 connections",
        Load(),
        {"uvicorn": 2.0, "granian": 2.3, "raw": 0.60},
        others=("gunicorn", "hypercorn"),
    ),
    Row(
        "repeated: GET, 12 browser-like headers and a cookie",
        Load(script=BROWSER),
        {"uvicorn": 2.0},
    ),
    Row("repeated: POST, 1 KB JSON, echoed", Load("/echo", script=POST), {"uvicorn": 1.8}),
    Row("repeated: GET, 100 KB body", Load("/large"), {"uvicorn": 1.2}),
    Row("repeated: GET, streamed in 100 chunks", Load("/chunks"), {"uvicorn": 1.5}),
    Row("repeated: Starlette JSON endpoint", Load("/json"), {"uvicorn": 1.4}),
    Row(
        "repeated: GET, 13-byte body, 1,000 connections",
        Load(connections=1000),
        {"uvicorn": 2.0},
    ),
    Row(
        "WebSocket echo, 64-byte messages, 32 connections",
        Echo(),
        {"uvicorn, websockets": 1.0, "uvicorn, websockets-sansio": 1.0, "uvicorn, wsproto": 1.0},
    ),
    Row(
        "repeated: HTTP/3: GET, 13-byte body, 10 connections",
        HTTP3(),
        {"hypercorn, HTTP/3": 1.3},
        subject="pounce, HTTP/3",
    ),
    Row(
        "HTTP/3: GET, 100 MB",
        HTTP3("/huge", connections=1),
        {"hypercorn, HTTP/3": 1.2},
        subject="pounce, HTTP/3",
    ),
    Row(
        "repeated: access log in a file",
        Load(),
        {"uvicorn, log in a file": 1.5},
        subject="pounce, log in a file",
    ),
    Row(
        "repeated: access log in the journal",
        Load(),
        {"uvicorn, log in the journal": 1.5},
        subject="pounce, log in the journal",
    ),
    # Where both workers share a core, the wall clock says nothing.
    Row(
        "repeated: two workers, one listener",
        Load(),
        {"pounce": 1.9 if CORES > 2 else 1.0},
        subject="pounce, 2 workers",
        wall=CORES > 2,
    ),
    Row(
        f"repeated: WSGI, 13-byte body, {THREADS} threads",
        Load(),
        {"gunicorn gthread": 2.0, "granian, wsgi": 1.2},
        subject="pounce, wsgi",
    ),
    Row(
        f"repeated: Flask JSON endpoint, {THREADS} threads",
        Load("/json"),
        {"gunicorn gthread, flask": 1.2},
        subject="pounce, flask",
    ),
    Row(
        "repeated: SyncApp, 13-byte body, 2 threads of a free-threaded Python",
        Load(),
        {"bengal-pounce": 3.0},
        subject="pounce, free-threaded",
        free_threaded=True,
    ),
)


def paced(rate: float, connections: int = 100) -> Load:
    """About *rate* requests a second: each connection waits between two of its own."""
    delay = max(1, round(connections / rate * 1000))
    return Load(
        connections=connections,
        script=_lua(f"function delay() return math.random({delay} * 2) end"),
    )
