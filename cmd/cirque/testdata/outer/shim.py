"""A server under test for connectconformance: its reference server, behind Cirque.

usage: shim.py same|h2c CIRQUE REFERENCESERVER CERT KEY

The suite says on the standard input what the server shall speak, and is told on
the standard output where it listens. Between the two stands a Cirque of its own,
which speaks the same to the origin as to the suite's client, or HTTP/2 without TLS
whatever that speaks. CERT and KEY are what Cirque identifies itself with where the
origin asks for that.
"""
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile

upstream, cirque, server, client_cert, client_key = sys.argv[1:]

# Numbers of the fields in the suite's messages.
HTTP_VERSION, USE_TLS, CLIENT_CERT, SERVER_CREDS = 2, 4, 5, 7  # of a request
HOST, PORT, PEM_CERT = 1, 2, 3  # of a response
CERT, KEY = 1, 2  # of credentials


def read_message(pipe):
    (length,) = struct.unpack('>I', pipe.read(4))
    return pipe.read(length)


def write_message(pipe, message):
    pipe.write(struct.pack('>I', len(message)) + message)
    pipe.flush()


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def parse(data):
    """The fields of a message, by number: numbers and bytes."""
    fields, at = {}, 0
    while at < len(data):
        tag, at = read_varint(data, at)
        value, at = read_varint(data, at)
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        fields[tag >> 3] = value
    return fields


def build(fields):
    out = b''
    for number, value in fields.items():
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        else:
            out += varint(number << 3) + varint(value)
    return out


def read_file(name):
    with open(name, 'rb') as f:
        return f.read()


def write_file(directory, name, data):
    with open(os.path.join(directory, name), 'wb') as f:
        f.write(data)


def config(directory, request, origin):
    """Cirque's configuration for what the suite wants."""
    http2, tls = request[HTTP_VERSION] == 2, request.get(USE_TLS)
    down, up = 'h2c: true', 'protocol: ' + ('h2c' if http2 or upstream == 'h2c' else 'http1')
    if tls:
        creds = parse(request[SERVER_CREDS])
        write_file(directory, 'a.pem', creds[CERT])
        write_file(directory, 'a.key', creds[KEY])
        down = 'certificates: [{cert: a.pem, key: a.key}]' + ('' if http2 else ', protocols: [http1]')
        if request.get(CLIENT_CERT):
            write_file(directory, 'clients.pem', request[CLIENT_CERT])
            down += ', client_auth: {ca: clients.pem}'
        down = 'tls: {%s}' % down
    if tls and upstream == 'same':
        write_file(directory, 'origin.pem', origin[PEM_CERT])
        up = 'protocol: %s, tls: {server_name: localhost, ca: origin.pem' % ('http2' if http2 else 'http1')
        if request.get(CLIENT_CERT):
            up += ', client_certificate: {cert: %s, key: %s}' % (client_cert, client_key)
        up += '}'
    return '''
listeners: {web: {address: "127.0.0.1:0", %s}}
routes: [{upstream: web}]
upstreams: {web: {peers: ["127.0.0.1:%d"], %s}}
''' % (down, origin[PORT], up)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    children = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            request = parse(read_message(sys.stdin.buffer))
            for_origin = dict(request)
            if upstream == 'h2c':
                for_origin.update({HTTP_VERSION: 2, USE_TLS: 0, CLIENT_CERT: b''})
            elif request.get(CLIENT_CERT):
                for_origin[CLIENT_CERT] = read_file(client_cert)
            origin = subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            children.append(origin)
            write_message(origin.stdin, build(for_origin))
            answer = parse(read_message(origin.stdout))
            file = os.path.join(directory, 'cirque.yaml')
            write_file(directory, 'cirque.yaml', config(directory, request, answer).encode())
            proxy = subprocess.Popen([cirque, 'run', '-c', file], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                     env=dict(os.environ, CIRQUE_TEST_AS_MAIN='1'))
            children.append(proxy)
            for line in proxy.stderr:
                sys.stderr.buffer.write(line)
                listening = re.search(rb'msg=listening .*address=127\.0\.0\.1:(\d+)', line)
                if listening:
                    break
            else:
                sys.exit('Cirque does not listen')
            answer[PORT] = int(listening[1])
            if request.get(USE_TLS):
                answer[PEM_CERT] = parse(request[SERVER_CREDS])[CERT]
            write_message(sys.stdout.buffer, build(answer))
            for line in proxy.stderr:
                pass
            sys.exit('Cirque ended')
        finally:
            for child in children:
                child.terminate()
                child.wait()


main()
