# SPDX-License-Identifier: GPL-2.0-or-later
"""
Conversations of so many bytes exactly, whose sockets then stay open.

  counted.py serve PORT ADDR...          serves TCP on PORT of all addresses, and UDP on PORT of
                                         these, where the answers come from; prints "ready"
  counted.py tcp ADDR PORT UP DOWN HALF  sends UP bytes and receives DOWN, at once; or, if HALF is 1,
                                         one after the other with the end of the first between them
  counted.py udp ADDR PORT UP DOWN       sends single datagrams and super-datagrams, receives such

A client prints "done" when it has sent and received everything, and then waits to be killed.
"""
import select
import socket
import struct
import sys
import threading
import time

HEADER = struct.Struct("!II?")  # bytes up and down, whether one after the other
BLOCK = bytes(1 << 18)
UDP_SEGMENT = 103  # linux/udp.h
SEGMENT = 1000
SUPER = 30_500
SINGLE = (1, 100, 1400, 8000)
ECHO, SEND_SUPER, NOTHING = b"E", b"S", b"\0"  # first byte of a datagram: what to answer
TIMEOUT = 60
LINGER = struct.pack("ii", 1, 0)


def send(sock, total):
    for at in range(0, total, len(BLOCK)):
        sock.sendall(BLOCK[: total - at])


def receive(sock, total):
    while total > 0:
        got = len(sock.recv(min(total, len(BLOCK))))
        if got == 0:
            sys.exit("the stream ended %d bytes too early" % total)
        total -= got


def answer_stream(sock):
    header = b""
    while len(header) < HEADER.size:
        header += sock.recv(HEADER.size - len(header))
    up, down, half = HEADER.unpack(header)
    sender = threading.Thread(target=send, args=(sock, down))
    if not half:
        sender.start()
    receive(sock, up - HEADER.size)
    if half:
        assert sock.recv(1) == b""
        sender.start()
    sender.join()
    killed = select.poll()
    killed.register(sock, 0)
    killed.poll()
    sock.close()


def send_super(sock, first, address):
    sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SEGMENT)
    sock.sendto(first + bytes(SUPER - 1), *address)
    sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)


def answer_datagrams(sock):
    while True:
        data, address = sock.recvfrom(65536)
        if data[:1] == ECHO:
            sock.sendto(data + b"!", address)
        elif data[:1] == SEND_SUPER:
            send_super(sock, NOTHING, (address,))


def datagram_socket(address):
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def serve(port, addresses):
    for address in addresses:
        udp = datagram_socket(address)
        udp.bind((address, port))
        threading.Thread(target=answer_datagrams, args=(udp,), daemon=True).start()
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    print("ready", flush=True)
    while True:
        sock = listener.accept()[0]
        threading.Thread(target=answer_stream, args=(sock,), daemon=True).start()


def stream(address, port, up, down, half):
    sock = socket.create_connection((address, port), timeout=TIMEOUT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)  # reset when it is killed
    sock.sendall(HEADER.pack(up, down, half))
    sender = threading.Thread(target=send, args=(sock, up - HEADER.size))
    sender.start()
    if half:
        sender.join()
        sock.shutdown(socket.SHUT_WR)
    receive(sock, down)
    sender.join()
    return sock


def datagrams(address, port, up, down):
    """Sends and receives so much with single datagrams and super-datagrams."""
    sock = datagram_socket(address)
    sock.settimeout(TIMEOUT)
    sock.connect((address, port))
    for size in SINGLE:
        sock.send(ECHO + bytes(size - 1))
        assert len(sock.recv(65536)) == size + 1
    sent, received = sum(SINGLE), sum(SINGLE) + len(SINGLE)
    sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SEGMENT)
    sock.send(SEND_SUPER + bytes(SUPER - 1))
    sent += SUPER
    for _ in range(0, SUPER, SEGMENT):
        received += len(sock.recv(65536))
    assert (sent, received) == (up, down), (sent, received)
    return sock


def main():
    mode, *arguments = sys.argv[1:]
    if mode == "serve":
        serve(int(arguments[0]), arguments[1:])
    address, *numbers = arguments
    kept = {"tcp": stream, "udp": datagrams}[mode](address, *map(int, numbers))
    print("done", flush=True)
    time.sleep(600)
    kept.close()


main()
