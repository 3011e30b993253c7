# SPDX-License-Identifier: GPL-2.0-or-later
"""
Servers and clients that tests of forwarded ports use.

  ports.py who PORTS [ADDR]          serves TCP and UDP on ports such as 1-3,7: whoever asks is told
                                     "PORT ADDR", the port asked and the asker's own address
  ports.py ask PROTOS PORTS ADDR...  asks such servers: {"replies": {"tcp ADDR PORT": reply or error}}
  ports.py listen N FIRST            listens on N TCP ports from FIRST on
  ports.py burst ADDR PORT N SIZE    N datagrams at once, expects all back in order: {"wrong": count}
  ports.py sink PORT N FILE          accepts N connections, reads nothing until FILE exists, then
                                     answers each with a digest of what it received
  ports.py eager ADDR PORT N BYTES   sends BYTES on each of N connections to a sink as fast as they
                                     take it, says "stuck" when none takes more: {"wrong": count}
  ports.py pinger ADDR PORT FILE     one byte there and back, again and again, until FILE exists:
                                     says "connected", then {"rounds": count}
  ports.py brief PORT                accepts one connection, listens no more, and echoes on it
  ports.py leave ADDR PORT N         N connections, each reset as soon as it is made
"""
import errno
import hashlib
import json
import os
import resource
import select
import selectors
import socket
import struct
import sys
import time

TIMEOUT = 15


def name(error):
    if isinstance(error, socket.timeout):
        return "TIMEOUT"
    return errno.errorcode.get(error.errno, str(error))


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(address, port):
    sock = socket.socket(family(address), socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT)
    sock.connect((address, port))
    return sock


def read_all(sock):
    parts = []
    while True:
        data = sock.recv(65536)
        if not data:
            return b"".join(parts)
        parts.append(data)


def port_list(text):
    ports = []
    for item in str(text).split(","):
        first, _, last = item.partition("-")
        ports += range(int(first), int(last or first) + 1)
    return ports


def raise_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def bound(kind, address, port):
    sock = socket.socket(family(address), kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if kind == socket.SOCK_STREAM else 0)
    if address == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((address, port))
    return sock


def tell(sock, port):
    """One question answered: a connection accepted and closed, or a datagram sent back."""
    if sock.type == socket.SOCK_STREAM:
        sock, asker = sock.accept()
        sock.sendall(b"%d %s" % (port, asker[0].encode()))
        sock.shutdown(socket.SHUT_WR)
        sock.close()
    else:
        _, asker = sock.recvfrom(100)
        sock.sendto(b"%d %s" % (port, asker[0].encode()), asker)


def who(ports, address="::"):
    raise_limit()
    poll = selectors.DefaultSelector()
    for port in port_list(ports):
        listener = bound(socket.SOCK_STREAM, address, port)
        listener.listen(100)
        for sock in listener, bound(socket.SOCK_DGRAM, address, port):
            poll.register(sock, selectors.EVENT_READ, port)
    print("ready", flush=True)
    while True:
        for key, _ in poll.select():
            try:
                tell(key.fileobj, key.data)
            except OSError:
                pass  # the asker has gone


def ask_one(protocol, address, port):
    try:
        if protocol == "tcp":
            with connect(address, port) as sock:
                return read_all(sock).decode().replace("::ffff:", "") or "EOF"
        with socket.socket(family(address), socket.SOCK_DGRAM) as sock:
            sock.settimeout(2)
            sock.connect((address, port))
            sock.send(b"?")
            return sock.recv(100).decode().replace("::ffff:", "")
    except OSError as error:
        return name(error)


def ask(protocols, ports, *addresses):
    return {"replies": {
        "%s %s %d" % (protocol, address, port): ask_one(protocol, address, port)
        for protocol in protocols.split(",") for address in addresses for port in port_list(ports)
    }}


def burst(address, port, count, size):
    sock = socket.socket(family(address), socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.connect((address, port))
    for i in range(count):
        sock.send(struct.pack("!I", i).ljust(size, b"b"))
    for i in range(count):
        try:
            if sock.recv(65536) != struct.pack("!I", i).ljust(size, b"b"):
                return {"wrong": count - i, "error": "different"}
        except OSError as error:
            return {"wrong": count - i, "error": name(error)}
    return {"wrong": 0}


def sink(port, count, path):
    listener = bound(socket.SOCK_STREAM, "::", port)
    listener.listen(count)
    print("ready", flush=True)
    socks = [listener.accept()[0] for _ in range(count)]
    while not os.path.exists(path):
        time.sleep(0.05)
    digests = {sock: hashlib.sha256() for sock in socks}
    while digests:
        for sock in select.select(list(digests), [], [])[0]:
            data = sock.recv(1 << 20)
            if data:
                digests[sock].update(data)
            else:
                sock.sendall(digests.pop(sock).hexdigest().encode())
                sock.close()


def eager(address, port, count, size):
    socks = [connect(address, port) for _ in range(count)]
    data = memoryview(os.urandom(size + count))
    left = {sock: data[i:i + size] for i, sock in enumerate(socks)}
    digests = {sock: hashlib.sha256(mine).hexdigest() for sock, mine in left.items()}
    for sock in socks:
        sock.setblocking(False)
    stuck = False
    while left:
        ready = select.select([], list(left), [], 1)[1]
        if not ready and not stuck:
            print("stuck", flush=True)
            stuck = True
        for sock in ready:
            left[sock] = left[sock][sock.send(left[sock][:1 << 20]):]
            if not left[sock]:
                del left[sock]
                sock.shutdown(socket.SHUT_WR)
    for sock in socks:
        sock.settimeout(TIMEOUT)
    return {"wrong": sum(read_all(sock).decode() != digests[sock] for sock in socks)}


def pinger(address, port, path):
    sock = connect(address, port)
    rounds = 0
    while not os.path.exists(path):
        sock.sendall(b"p")
        if sock.recv(1) != b"p":
            return {"rounds": rounds, "error": "EOF"}
        if not rounds:
            print("connected", flush=True)
        rounds += 1
        time.sleep(0.1)
    return {"rounds": rounds}


def listen(count, first):
    raise_limit()
    socks = [bound(socket.SOCK_STREAM, "::", first + i) for i in range(count)]
    for sock in socks:
        sock.listen(1)
    print("ready", flush=True)
    while True:
        time.sleep(1000)


def brief(port):
    listener = bound(socket.SOCK_STREAM, "::", port)
    listener.listen(1)
    print("ready", flush=True)
    sock = listener.accept()[0]
    sock.sendall(sock.recv(100))
    listener.close()
    while data := sock.recv(100):
        sock.sendall(data)


def leave(address, port, count):
    for _ in range(count):
        sock = connect(address, port)
        sock.send(b"x")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def number(text):
    return int(text) if text.isdigit() else text


MODES = {"who": who, "sink": sink, "brief": brief, "listen": listen, "leave": leave, "ask": ask,
         "burst": burst, "eager": eager, "pinger": pinger}

outcome = MODES[sys.argv[1]](*map(number, sys.argv[2:]))
if outcome is not None:
    print(json.dumps(outcome))
