"""WebSocket ends on the library websockets, for the outer ring of tests.

"serve" is a server: it prints "listening ADDRESS", and a line of JSON for each
conversation that ended, with what it saw. "talk" is a client: it reads a
conversation as JSON from each line of its standard input, has them one after
the other and prints what it saw of each. Both end when their standard input
does. outer_talk_test.go says what a conversation is.
"""

import asyncio
import hashlib
import http
import json
import ssl
import sys

import websockets

LIMIT = 4 << 20


def fill(kind, seed, size):
    """Returns size bytes that follow from the seed, as text or as binary."""
    parts, have = [], 0
    while have < size:
        digest = hashlib.sha256(f"{seed}:{len(parts)}".encode())
        parts.append(digest.hexdigest().encode() if kind == "text" else digest.digest())
        have += len(parts[-1])
    data = b"".join(parts)[:size]
    return data.decode() if kind == "text" else data


def seen(message):
    kind = "text" if isinstance(message, str) else "binary"
    data = message.encode() if kind == "text" else message
    return f"{kind} {len(data)} {hashlib.sha256(data).hexdigest()}"


def ended(close):
    """Says with what frame the other end closed: 1006 if with none."""
    if close is None:
        return "closed 1006 "
    return f"closed {int(close.code)} {close.reason}"


async def serve_messages(ws, log):
    await ws.send("hello " + ws.path.split("?")[0])
    async for message in ws:
        log.append(seen(message))
        command = message.split(" ", 3) if isinstance(message, str) else [""]
        if command[0] == "!push":
            for i in range(int(command[1])):
                await ws.send(fill("binary", f"{command[3]}/{i}", int(command[2])))
        elif command[0] == "!ping":
            await (await ws.ping())
            await ws.send("ponged")
        elif command[0] == "!close":
            await ws.close(int(command[1]), " ".join(command[2:]))
            log.append("closed it")
            return
        elif command[0] == "!vanish":
            ws.transport.abort()
            return
        elif command[0] == "!late":
            await ws.send("ready")  # the library cannot send any more when the other end has ended
        elif len(message) % 2:
            third = len(message) // 3
            await ws.send([message[:third], message[third:2 * third], message[2 * third:]])
        else:
            await ws.send(message)


async def served(ws):
    log = []
    try:
        await serve_messages(ws, log)
        if not log or log[-1] != "closed it":
            log.append(ended(ws.close_rcvd))
    except websockets.ConnectionClosed as e:
        log.append(ended(e.rcvd))
    print(json.dumps({"path": ws.path, "log": log}))


async def refuse(path, headers):
    if path.startswith("/refused"):
        return http.HTTPStatus.FORBIDDEN, {"X-Why": "no"}, b"not you\n"


async def serve():
    async with websockets.serve(served, "127.0.0.1", 0, max_size=LIMIT, ping_interval=None, close_timeout=2,
                                subprotocols=["talk.v1"], process_request=refuse) as server:
        host, port = server.sockets[0].getsockname()
        print(f"listening {host}:{port}")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    sys.exit(0)


async def step(ws, op, log):
    """Does one thing of a conversation."""
    do = op["do"]
    if do == "send":
        message = fill(op["kind"], op["seed"], op["size"])
        if cuts := op.get("cuts"):
            edges = [0, *cuts, len(message)]
            await ws.send([message[a:b] for a, b in zip(edges, edges[1:])])
        else:
            await ws.send(message)
        echo = await ws.recv()
        log.append(seen(echo) if echo == message else f"wrong echo: {seen(echo)} of {seen(message)}")
    elif do == "push":
        await ws.send(f"!push {op['count']} {op['size']} {op['seed']}")
        for _ in range(op["count"]):
            log.append(seen(await ws.recv()))
    elif do == "ping":
        await (await ws.ping())
        log.append("pong")
    elif do == "pinged":
        await ws.send("!ping")
        log.append(seen(await ws.recv()))
    elif do == "close":
        await ws.close(op["code"], op["reason"])
        log.append("closed it")
    elif do == "be closed":
        await ws.send(f"!close {op['code']} {op['reason']}")
        log.append(seen(await ws.recv()))
    elif do == "vanish":
        ws.transport.abort()
        log.append("vanished")
    elif do == "be left":
        await ws.send("!vanish")
        log.append(seen(await ws.recv()))
    elif do == "half":
        await ws.send(f"!late {op['count']} {op['size']} {op['seed']}")
        log.append(seen(await ws.recv()))
        ws.transport.write_eof()
        while True:
            log.append(seen(await ws.recv()))


async def talk(conversation):
    log, tls = [], None
    if ca := conversation.get("ca"):
        tls = ssl.create_default_context(cafile=ca)
    try:
        async with asyncio.timeout(15), websockets.connect(
                conversation["url"], ssl=tls, max_size=LIMIT, ping_interval=None, close_timeout=2, subprotocols=["talk.v1"],
                compression="deflate" if conversation["compress"] else None) as ws:
            # Whether, not how: the two ends may name different windows.
            log.append(f"{ws.subprotocol} compressed={bool(ws.extensions)}".lower())
            log.append(seen(await ws.recv()))
            for op in conversation["ops"]:
                await step(ws, op, log)
    except websockets.ConnectionClosed as e:
        # Over TLS the library tells of the end that was its own doing too.
        if log[-1:] != ["vanished"]:
            log.append(ended(e.rcvd))
    except websockets.InvalidStatusCode as e:
        log.append(f"refused {e.status_code} {e.headers.get('X-Why')}")
    except TimeoutError:
        log.append("it took too long")
    return log


async def talk_all():
    lines = asyncio.get_running_loop()
    print("listening nowhere")
    while line := await lines.run_in_executor(None, sys.stdin.readline):
        conversation = json.loads(line)
        print(json.dumps({"path": conversation["url"], "log": await talk(conversation)}))


asyncio.run(serve() if sys.argv[1] == "serve" else talk_all())
