# SPDX-License-Identifier: GPL-2.0-or-later
"""
Both ends of TCP and UDP conversations that are not the usual ones.

  edge.py server PORT               serves TCP on PORT, both families; prints "ready"
  edge.py client ADDR PORT MODE     runs one conversation and prints a JSON object
  edge.py connect ADDR PORT         connects only: {"error": errno name or "", "ms": time}
  edge.py udp ADDR PORT SIZE...     sends datagrams of these sizes, expects each back
  edge.py udperror ADDR PORT        sends until the socket reports an error: {"error": ...}
  edge.py udpmany ADDR PORT N       N sockets at once, each expects its own datagram back
  edge.py mss ADDR PORT             {"mss": what the kernel uses}

A client first sends its mode as one line; the server does its part of that mode:

  slow_server    the server waits before it reads, in small portions; client sends BULK bytes
  slow_client    the server sends BULK bytes; the client waits before it reads, in small portions
  half_client    the client sends, shuts down, and only then reads what the server answers
  half_server    the server sends and shuts down, and still receives what the client sends then
  reset_server   the server resets after the first line
  reset_client   the client resets; the next "last" conversation tells what the server saw
  last           the server tells the error that the reset_client conversation ended with
"""
import errno
import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time

BULK = 30_000_000
PAUSE = 1.5
PORTION = 50_000
BLOCK = os.urandom(1_000_000)
TIMEOUT = 30

last_error = ""


def name(error):
    if isinstance(error, socket.timeout):
        return "TIMEOUT"
    return errno.errorcode.get(error.errno, str(error))


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def send_bulk(sock):
    digest = hashlib.sha256()
    sent = 0
    while sent < BULK:
        sock.sendall(BLOCK)
        digest.update(BLOCK)
        sent += len(BLOCK)
    return digest.hexdigest()


def read_slowly(sock):
    digest = hashlib.sha256()
    time.sleep(PAUSE)
    total = 0
    while True:
        data = sock.recv(PORTION)
        if not data:
            return digest.hexdigest()
        digest.update(data)
        total += len(data)
        if total < 20 * PORTION:
            time.sleep(0.02)  # the beginning trickles, so that windows open a little at a time


def read_all(sock):
    parts = []
    while True:
        data = sock.recv(65536)
        if not data:
            return b"".join(parts)
        parts.append(data)


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def line(sock):
    text = b""
    while not text.endswith(b"\n"):
        data = sock.recv(1)
        if not data:
            break
        text += data
    return text.decode().strip()


def answer(sock):
    global last_error
    mode = line(sock)
    if mode == "slow_server":
        sock.sendall(read_slowly(sock).encode())
    elif mode == "slow_client":
        send_bulk(sock)
    elif mode == "half_client":
        data = read_all(sock)
        time.sleep(0.3)
        sock.sendall(b"%d bytes" % len(data))
    elif mode == "half_server":
        sock.sendall(b"from server")
        sock.shutdown(socket.SHUT_WR)
        last_error = "%d bytes" % len(read_all(sock))
    elif mode == "reset_server":
        return reset(sock)
    elif mode == "reset_client":
        try:
            read_all(sock)
            last_error = "EOF"
        except OSError as error:
            last_error = name(error)
    elif mode == "last":
        sock.sendall(last_error.encode())
    sock.close()


def serve(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=128,
                                    dualstack_ipv6=True)
    print("ready", flush=True)
    while True:
        sock, _ = listener.accept()
        sock.settimeout(TIMEOUT)
        threading.Thread(target=answer, args=(sock,), daemon=True).start()


def converse(sock, mode):
    sock.sendall(mode.encode() + b"\n")
    if mode == "slow_server":
        mine = send_bulk(sock)
        sock.shutdown(socket.SHUT_WR)
        return {"equal": read_all(sock).decode() == mine}
    if mode == "slow_client":
        sock.settimeout(TIMEOUT)
        start = time.monotonic()
        read_slowly(sock)
        return {"seconds": time.monotonic() - start}
    if mode == "half_client":
        sock.sendall(b"x" * 100_000)
        sock.shutdown(socket.SHUT_WR)
        return {"reply": read_all(sock).decode()}
    if mode == "half_server":
        reply = read_all(sock).decode()
        time.sleep(0.3)
        for _ in range(10):
            sock.sendall(b"y" * 10_000)
            time.sleep(0.01)
        sock.close()
        return {"reply": reply}
    if mode == "reset_server":
        try:
            data = sock.recv(1)
            return {"error": "EOF" if not data else "data"}
        except OSError as error:
            return {"error": name(error)}
    if mode == "reset_client":
        time.sleep(0.2)
        reset(sock)
        return {}
    return {"reply": read_all(sock).decode()}


def connect(address, port):
    sock = socket.socket(family(address), socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT)
    sock.connect((address, port))
    return sock


def try_connect(address, port):
    start = time.monotonic()
    error = ""
    try:
        connect(address, port)
    except OSError as caught:
        error = name(caught)
    return {"error": error, "ms": round((time.monotonic() - start) * 1000)}


def datagrams(address, port, sizes):
    sock = socket.socket(family(address), socket.SOCK_DGRAM)
    sock.settimeout(10)
    sock.connect((address, port))
    wrong = []
    for size in sizes:
        data = os.urandom(size)
        try:
            sock.send(data)
            if sock.recv(65536) != data:
                wrong.append([size, "different"])
        except OSError as error:
            wrong.append([size, name(error)])
    return {"wrong": wrong}


IP_RECVERR = (socket.IPPROTO_IP, 11)  # linux/in.h
IPV6_RECVERR = (socket.IPPROTO_IPV6, 25)  # linux/in6.h


def datagram_error(address, port):
    sock = socket.socket(family(address), socket.SOCK_DGRAM)
    # without it the kernel keeps all errors but a closed port to itself
    sock.setsockopt(*(IPV6_RECVERR if ":" in address else IP_RECVERR), 1)
    sock.settimeout(3)
    sock.connect((address, port))
    for _ in range(3):
        try:
            sock.send(b"x")
            sock.recv(10)
        except socket.timeout:
            continue
        except OSError as error:
            return {"error": name(error)}
    return {"error": "TIMEOUT"}


def many_datagrams(address, port, count):
    socks = []
    for i in range(count):
        sock = socket.socket(family(address), socket.SOCK_DGRAM)
        sock.settimeout(10)
        sock.connect((address, port))
        sock.send(b"%d" % i)
        socks.append(sock)
    wrong = 0
    for i, sock in enumerate(socks):
        try:
            wrong += sock.recv(100) != b"%d" % i
        except OSError:
            wrong += 1
    return {"wrong": wrong}


def main():
    what, args = sys.argv[1], sys.argv[2:]
    if what == "server":
        return serve(int(args[0]))
    address, port = args[0], int(args[1])
    if what == "client":
        result = converse(connect(address, port), args[2])
    elif what == "connect":
        result = try_connect(address, port)
    elif what == "udp":
        result = datagrams(address, port, [int(size) for size in args[2:]])
    elif what == "udperror":
        result = datagram_error(address, port)
    elif what == "udpmany":
        result = many_datagrams(address, port, int(args[2]))
    else:
        sock = connect(address, port)
        result = {"mss": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)}
    print(json.dumps(result))


main()
