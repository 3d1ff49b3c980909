"""An origin on asyncio streams, for the outer ring of tests.

It speaks HTTP by hand, so that it can do what servers seldom do. It prints
"listening ADDRESS", and "left PATH" when the client of /never goes. It ends
when its standard input does.
"""

import asyncio
import hashlib
import json
import pathlib
import sys

ROOT = pathlib.Path(sys.argv[1])


async def read_head(reader):
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    lines = raw.decode("latin-1").split("\r\n")[:-2]
    method, target, version = lines[0].split(" ")
    fields = {}
    for line in lines[1:]:
        name, value = line.split(":", 1)
        fields[name.lower()] = value.strip()
    return method, target, version, fields


async def read_chunked(reader, update):
    trailers = {}
    while size := int((await reader.readline()).split(b";")[0], 16):
        update(await reader.readexactly(size))
        await reader.readexactly(2)
    while (line := await reader.readline()) != b"\r\n":
        name, value = line.decode("latin-1").split(":", 1)
        trailers[name.lower()] = value.strip()
    return trailers


async def read_body(reader, fields):
    digest, length, trailers = hashlib.sha256(), 0, {}

    def update(piece):
        nonlocal length
        length += len(piece)
        digest.update(piece)

    if fields.get("transfer-encoding") == "chunked":
        trailers = await read_chunked(reader, update)
    else:
        rest = int(fields.get("content-length", "0"))
        while rest:
            piece = await reader.read(min(rest, 65536))
            if not piece:
                raise ConnectionError("cut")
            update(piece)
            rest -= len(piece)
    return {"length": length, "sha256": digest.hexdigest(), "trailers": trailers,
            "chunked": "transfer-encoding" in fields, "expect": fields.get("expect", "")}


def answer(writer, body, status="200 OK"):
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


async def crumbs(writer):
    """Sends a response byte by byte, its head too."""
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n"
    text += b"".join(b"1;x=y\r\n%c\r\n" % c for c in b"crumb by crumb") + b"0\r\nX-End: yes\r\n\r\n"
    for i in range(len(text)):
        writer.write(text[i:i + 1])
        await writer.drain()
        await asyncio.sleep(0)


async def serve(reader, writer):
    """Serves requests and reports whether the connection is kept."""
    head = await read_head(reader)
    if head is None:
        return False
    method, target, version, fields = head
    if fields.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if target.startswith("/never"):
        print("has", target)
        await reader.read()
        print("left", target)
        return False
    body = await read_body(reader, fields)
    kept = True
    if target == "/upload":
        answer(writer, json.dumps({"method": method} | body).encode())
    elif target == "/crumbs":
        await crumbs(writer)
    elif target == "/old":
        # No length: the end of the connection is the end of the body.
        writer.write(b"HTTP/1.0 200 Fine\r\nX-Kind: old\r\n\r\nuntil the end")
        kept = False
    elif target == "/cut":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ntoo little")
        kept = False
    elif target.startswith("/file/") and (ROOT / target[1:]).is_file():
        data = (ROOT / target[1:]).read_bytes()
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        if method != "HEAD":
            writer.write(data)
    else:
        answer(writer, b"nothing here\n", "404 Not Found")
    await writer.drain()
    return kept


async def connected(reader, writer):
    try:
        while await serve(reader, writer):
            pass
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
    host, port = server.sockets[0].getsockname()
    print(f"listening {host}:{port}")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()
    sys.exit(0)


asyncio.run(main())
