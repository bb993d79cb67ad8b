"""Requests that two servers could read differently, each with another request hidden inside.

Every attack is bytes that one client sends on one connection to a proxy. INNER is what a
disagreement about the end of the outer request would let through.
"""

from collections.abc import Iterator

from tests.conformance import corpus

INNER = b"GET /inner HTTP/1.1\r\nHost: a.example\r\nX-Inner: yes\r\n\r\n"

# A corpus file is one connection; the longest only test limits.
LONGEST = 20_000

CODINGS = [
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:chunked",
    b"Transfer-Encoding:\tchunked\t",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding\r\n: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding\0: chunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: \xa0chunked",
    b"Transfer-Encoding: chunked\0",
    b"Transfer-Encoding: chunked\r",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: CHUNKED",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: ",
    b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    b"Transfer_Encoding: chunked",
    b" Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\r\r\nTransfer-Encoding: chunked",
    b"X\r\nTransfer-Encoding: chunked",
    b":\r\nTransfer-Encoding: chunked",
    b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
]

LENGTHS = [
    b"Content-Length: 5\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: 5",
    b"Content-Length: 5, %d",
    b"Content-Length: %d, 5",
    b"Content-Length: %d, %d",
    b"Content-Length: +%d",
    b"Content-Length: -%d",
    b"Content-Length: 0%d",
    b"Content-Length: 0x%x",
    b"Content-Length: %d.0",
    b"Content-Length: %d;",
    b"Content-Length: %d\0",
    b"Content-Length: %d\x0b",
    b"Content-Length: 5 %d",
    b"Content-Length: 184467440737095516%d",
    b"Content-Length : %d",
    b"Content-Length\0: %d",
    b"Content-Length:\r\n %d",
    b"Content-Length: 5\r\n %d",
    b"Content_Length: %d",
    b" Content-Length: %d",
    b"X: y\nContent-Length: %d",
    b"X: y\rContent-Length: %d",
    b"Connection: Content-Length\r\nContent-Length: %d",
    b"Connection: close, Content-Length\r\nContent-Length: %d",
    b"Content-Length: ",
]

CHUNKS = [
    b"5\nabcde\r\n0\r\n\r\n",
    b"5\rabcde\r\n0\r\n\r\n",
    b"5\r\nabcde\n0\r\n\r\n",
    b"5\r\nabcde0\r\n\r\n",
    b"5\r\nabcdeXX0\r\n\r\n",
    b"5\r\nabcde\r\n0\n\n",
    b"5\r\nabcde\r\n0\r\n\n",
    b"5\r\nabcde\r\n0\r\r\n\r\n",
    b"5\r\nabcde\r\n0\r\n",
    b"5\r\nabcde\r\n",
    b"0x5\r\nabcde\r\n0\r\n\r\n",
    b"+5\r\nabcde\r\n0\r\n\r\n",
    b"-5\r\nabcde\r\n0\r\n\r\n",
    b" 5\r\nabcde\r\n0\r\n\r\n",
    b"5 \r\nabcde\r\n0\r\n\r\n",
    b"5\t\r\nabcde\r\n0\r\n\r\n",
    b"5\0\r\nabcde\r\n0\r\n\r\n",
    b"5,\r\nabcde\r\n0\r\n\r\n",
    b"5_0\r\nabcde\r\n0\r\n\r\n",
    b"\r\nabcde\r\n0\r\n\r\n",
    b";x\r\nabcde\r\n0\r\n\r\n",
    b"0000000000000000000000005\r\nabcde\r\n0\r\n\r\n",
    b"100000005\r\nabcde\r\n0\r\n\r\n",
    b"10000000000000005\r\nabcde\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
    b"5;\nabcde\r\n0\r\n\r\n",
    b"5;x=y\nabcde\r\n0\r\n\r\n",
    b"5;x=y\rabcde\r\n0\r\n\r\n",
    b'5;x="\r\n0\r\n\r\n"\r\nabcde\r\n0\r\n\r\n',
    b"5;x=\0\r\nabcde\r\n0\r\n\r\n",
    b"2;\n40\r\nab\r\n0\r\n\r\n",
    b"00\r\n\r\n",
    b"0;x\r\n\r\n",
    b"0 \r\n\r\n",
    b"0\r\nContent-Length: 60\r\n\r\n",
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"0\r\nX: y\n\r\n",
    b"0\r\nX: y\n\n",
    b"0\r\nX\r\n\r\n",
    b"0\r\n : y\r\n\r\n",
    b"0\r\nHost: b.example\r\n\r\n",
]

HEADS = [
    # Where a request without a body ends.
    b"GET /outer HTTP/1.1\r\nHost: a.example\r\n\n",
    b"GET /outer HTTP/1.1\nHost: a.example\n\n",
    b"GET /outer HTTP/1.1\r\nHost: a.example\r\n\r\r\n\r\n",
    b"GET /outer HTTP/1.1\r\nHost: a.example\r\nX: y\0\r\n\r\n",
    b"GET /outer HTTP/1.1\r\nHost: a.example\r\n \r\n\r\n",
    b"GET /outer HTTP/1.1\r\n Host: a.example\r\n\r\n",
    b"GET /outer HTTP/1.1\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"GET /outer HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
    b"GET /outer HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
    b"GET /outer HTTP/1.1\r\nHost: a.example/inner?\r\n\r\n",
    b"GET http://b.example/outer HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET http://b.example@a.example/outer HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET //b.example/outer HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET /outer#/inner HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET /outer HTTP/1.1\rX: y HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET /outer HTTP/1.1 HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET /outer\tHTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET /outer%20HTTP/1.1%0d%0aX:%20y HTTP/1.1\r\nHost: a.example\r\n\r\n",
    # Other versions, and other protocols.
    b"GET /outer\r\n",
    b"GET /outer HTTP/0.9\r\n\r\n",
    b"GET /outer HTTP/1.0\r\n\r\n",
    b"GET /outer HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    b"POST /outer HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /outer HTTP/1.2\r\nHost: a.example\r\n\r\n",
    b"GET /outer HTTP/2.0\r\nHost: a.example\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n",
    (
        b"GET /outer HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    ),
    (
        b"GET /outer HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 777\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
    (
        b"GET /outer HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
    b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n",
    # Methods and expectations.
    b"GET /outer HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nabcde",
    b"HEAD /outer HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nabcde",
    b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nabcde",
    b"get /outer HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nabcde",
    b"GET /outer HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\n\r\n",
    (
        b"POST /outer HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\n"
        b"Content-Length: 5\r\n\r\nabcde"
    ),
    (
        b"POST /outer HTTP/1.1\r\nHost: a.example\r\nExpect: x 100-continue\r\n"
        b"Content-Length: 5\r\n\r\nabcde"
    ),
    (
        b"POST /outer HTTP/1.1\r\nHost: a.example\r\nExpect:\r\n 100-continue\r\n"
        b"Content-Length: 5\r\n\r\nabcde"
    ),
    (
        b"POST /outer HTTP/1.1\r\nHost: a.example\r\nConnection: Host, close\r\n"
        b"Content-Length: 5\r\n\r\nabcde"
    ),
]


def outer(fields: bytes, content: bytes, version: bytes = b"1.1") -> bytes:
    """A POST request."""
    head = b"POST /outer HTTP/%b\r\nHost: a.example\r\n%b\r\n\r\n" % (version, fields)
    return head + content


def codings() -> Iterator[bytes]:
    for coding in CODINGS:
        ended = b"0\r\n\r\n" + INNER
        hiding = b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)
        length = b"Content-Length: %d" % len(ended)
        yield outer(b"%b\r\n%b" % (length, coding), ended)
        yield outer(b"%b\r\n%b" % (coding, length), ended)
        yield outer(b"%b\r\nContent-Length: 4" % coding, hiding)
        yield outer(coding, ended)
        yield outer(b"Connection: keep-alive\r\n%b\r\n%b" % (coding, length), ended, b"1.0")


def lengths() -> Iterator[bytes]:
    content = b"abcde" + INNER
    for length in LENGTHS:
        yield outer(length % ((len(content),) * length.count(b"%")), content)


def chunks() -> Iterator[bytes]:
    for content in CHUNKS:
        yield outer(b"Transfer-Encoding: chunked", content + INNER)


def heads() -> Iterator[bytes]:
    for head in HEADS:
        yield head + INNER


def attacks() -> dict[str, list[bytes]]:
    """All, in groups."""
    return {
        "codings": list(codings()),
        "lengths": list(lengths()),
        "chunks": list(chunks()),
        "heads": list(heads()),
        "corpus, invalid": [case.raw for case in corpus.INVALID if len(case.raw) < LONGEST],
        "corpus, valid": [case.raw for case in corpus.VALID if len(case.raw) < LONGEST],
    }
