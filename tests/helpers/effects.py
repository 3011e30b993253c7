# SPDX-License-Identifier: GPL-2.0-or-later
"""
Servers and clients that tests of options use.

  effects.py serve "ADDR PORT"...        serves TCP and UDP there: whoever asks is told
                                         "ADDR PORT asked by ASKER"; says "ready"
  effects.py ask "PROTO ADDR PORT"...    asks such servers (PROTO is tcp or udp), or pings ("ping ADDR"),
                                         one line each: "PROTO ADDR PORT: ANSWER", or nothing for an answer
  effects.py services INTERFACE          asks as clients of DHCP, DHCPv6 and neighbour discovery do that have
                                         no address yet, one line each: "dhcp OPTION HEX", "dhcpv6 OPTION HEX",
                                         "ra OPTION HEX", "na", "arp"
  effects.py share COMMAND...            runs a command that inherits a connected socket as descriptor 7 and
                                         a file as 8; then "heard WORD" for each line that came with WORD
                                         first, and "file TEXT" with what the file begins with
"""
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import time

TIMEOUT = 1.5  # an answer takes milliseconds: this only decides how long a missing one is waited for
TRIES = 2
SHARED_SOCKET, SHARED_FILE, SHARED_SIZE = 7, 8, 1 << 20
ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 3, 0x0800, 0x0806, 0x86DD  # linux/if_ether.h


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def bound(kind, address, port):
    sock = socket.socket(family(address), kind)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    return sock


def tell(sock, place):
    if sock.type == socket.SOCK_STREAM:
        with sock.accept()[0] as accepted:
            accepted.send(("%s asked by %s" % (place, accepted.getpeername()[0])).encode())
    else:
        asker = sock.recvfrom(100)[1]
        sock.sendto(("%s asked by %s" % (place, asker[0])).encode(), asker)


def serve(*places):
    poll = selectors.DefaultSelector()
    for place in places:
        address, port = place.split()
        listener = bound(socket.SOCK_STREAM, address, int(port))
        listener.listen(10)
        for sock in listener, bound(socket.SOCK_DGRAM, address, int(port)):
            poll.register(sock, selectors.EVENT_READ, place)
    print("ready", flush=True)
    while True:
        for key, _ in poll.select():
            try:
                tell(key.fileobj, key.data)
            except OSError:
                pass  # the asker has gone


def answer(protocol, address, port=None):
    if protocol == "ping":
        return "answered" if subprocess.run(
            ["ping", "-n", "-c", "1", "-W", "2", address], capture_output=True).returncode == 0 else ""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family(address), kind) as sock:
        sock.settimeout(TIMEOUT)
        try:
            sock.connect((address, int(port)))
            if protocol == "udp":
                sock.send(b"?")  # over TCP, a server that leaves it unread would reset the connection
            return sock.recv(200).decode()
        except OSError:
            return ""


def ask(*questions):
    for question in questions:
        for _ in range(TRIES):
            found = answer(*question.split())
            if found:
                break
        print("%s: %s" % (question, found))


def share(*command):
    ours, theirs = socket.socketpair()
    file = os.memfd_create("file")
    os.ftruncate(file, SHARED_SIZE)
    for fd, number in (theirs.fileno(), SHARED_SOCKET), (file, SHARED_FILE):
        os.dup2(fd, number, inheritable=True)
    with subprocess.Popen(command, close_fds=False) as child:
        theirs.close()
        os.close(SHARED_SOCKET)
        for line in ours.makefile():
            print("heard", next(iter(json.loads(line))))
    print("file", os.pread(file, 4, 0).decode())
    sys.exit(child.returncode)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def udp4(source_port, port, data):
    """From 0.0.0.0 to everybody, without a checksum (RFC 768)."""
    udp = struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def packet6(source, target, protocol, data, at):
    """`at`: where the checksum is in the data (RFC 8200 section 8.1)."""
    pseudo = source + target + struct.pack("!II", len(data), protocol)
    data = data[:at] + struct.pack("!H", checksum(pseudo + data)) + data[at + 2:]
    return struct.pack("!IHBB", 6 << 28, len(data), protocol, 255) + source + target + data


def discover(mac):
    """DHCPDISCOVER that asks for mask, router, resolvers, name, MTU, search list and full name."""
    wanted = bytes([1, 3, 6, 12, 26, 119, 81])
    options = b"\x63\x82\x53\x63\x35\x01\x01" + bytes([55, len(wanted)]) + wanted
    options += bytes([81, 3, 4, 0, 0, 255])  # RFC 4702: a full name, encoded
    return struct.pack("!BBBBIHH16s16s192s", 1, 1, 6, 0, 1, 0, 0x8000, b"", mac, b"") + options


def solicit(mac):
    """SOLICIT with a client's identifier, an address wanted, and options asked for (RFC 8415)."""
    wanted = struct.pack("!HHHHH", 6, 6, 23, 24, 39)
    return (b"\x01\x01\x02\x03" + struct.pack("!HHHH", 1, 10, 3, 1) + mac +
            struct.pack("!HHIII", 3, 12, 1, 0, 0) + wanted)


def show(kind, options, size, form):
    """Type-length-value options; `size`: bytes of the lengths' unit."""
    at, head = 0, struct.calcsize(form)
    while at + head <= len(options):
        code, length = struct.unpack_from(form, options, at)
        if kind == "dhcp" and code == 255 or kind == "ra" and length == 0:
            return
        end = at + length * size if kind == "ra" else at + head + length
        print(kind, code, options[at + head:end].hex())
        at = end


def is_udp6(frame, port):
    return frame[12:14] == b"\x86\xdd" and frame[20] == 17 and frame[56:58] == struct.pack("!H", port)


def shown(frame, kinds):
    """Shows the options of an answer that was not there yet."""
    kind = None
    if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == b"\0\x44":
        kind, arguments = "dhcp", (frame[14 + 28 + 240:], 1, "!BB")
    elif is_udp6(frame, 546):
        kind, arguments = "dhcpv6", (frame[14 + 48 + 4:], 1, "!HH")
    elif frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 134:
        kind, arguments = "ra", (frame[54 + 16:], 8, "!BB")
    elif frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 136:
        kind, arguments = "na", (b"", 1, "!BB")
    elif frame[12:14] == b"\x08\x06":
        kind, arguments = "arp", (b"", 1, "!BB")
    if kind is None or kind in kinds:
        return
    kinds.add(kind)
    print(kind)
    show(kind, *arguments)


def questions(mac):
    ours = bytes.fromhex("fe80") + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    everyone = bytes.fromhex("ff02") + bytes(13)
    servers = bytes.fromhex("ff02") + bytes(11) + b"\1\0\2"
    message = solicit(mac)
    udp = struct.pack("!HHHH", 546, 547, 8 + len(message), 0) + message
    multicast = lambda address: b"\x33\x33" + address[12:]
    routers = everyone + b"\2"
    router = bytes.fromhex("fe80") + bytes(13) + b"\1"
    node = everyone[:11] + b"\1\xff" + router[13:]
    ns = b"\x87\0\0\0" + bytes(4) + router + b"\1\1" + mac
    yield b"\xff" * 6, ETH_P_IP, udp4(68, 67, discover(mac))
    yield multicast(servers), ETH_P_IPV6, packet6(ours, servers, 17, udp, 6)
    yield multicast(routers), ETH_P_IPV6, packet6(ours, routers, 58, b"\x85\0\0\0" + bytes(4), 2)
    yield multicast(node), ETH_P_IPV6, packet6(ours, node, 58, ns, 2)
    # last: who answers this has had the others, and will not answer them any more
    addresses = mac + bytes([192, 0, 2, 2]) + bytes(6) + bytes([192, 0, 2, 1])
    yield b"\xff" * 6, ETH_P_ARP, struct.pack("!HHBBH", 1, ETH_P_IP, 6, 4, 1) + addresses


def services(interface):
    subprocess.run(["ip", "link", "set", interface, "up"], check=True)
    with open("/sys/class/net/%s/address" % interface) as file:
        mac = bytes.fromhex(file.read().strip().replace(":", ""))
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((interface, ETH_P_ALL))
    kinds = set()
    for _ in range(TRIES):
        if "arp" in kinds:
            break
        for to, protocol, packet in questions(mac):
            sock.send(to + mac + struct.pack("!H", protocol) + packet)
        end = time.monotonic() + TIMEOUT
        while "arp" not in kinds and time.monotonic() < end:
            sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                frame, source = sock.recvfrom(65536)
            except OSError:
                break
            if source[2] != socket.PACKET_OUTGOING:
                shown(frame, kinds)
    print("asked")


{"serve": serve, "ask": ask, "services": services, "share": share}[sys.argv[1]](*sys.argv[2:])
