# SPDX-License-Identifier: GPL-2.0-or-later
"""
Sends a packet whose source address is not the sender's, and says what comes back for that address.

  forged.py INTERFACE PROTO SOURCE DESTINATION PORT     PROTO is tcp (a SYN) or udp (a question mark)

Prints "udp PAYLOAD", "tcp FLAGS", "icmp TYPE CODE", or "nothing".
"""
import socket
import struct
import sys
import time

TIMEOUT = 3  # an answer takes milliseconds
ETH_P_ALL = 3  # linux/if_ether.h
TCP, UDP = 6, 17
SOURCE_PORT = 4000


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def transport(protocol, source, destination, port):
    if protocol == UDP:
        data, at = struct.pack("!HHHH", SOURCE_PORT, port, 9, 0) + b"?", 6
    else:
        data, at = struct.pack("!HHIIBBHHH", SOURCE_PORT, port, 1, 0, 5 << 4, 2, 64000, 0, 0), 16
    pseudo = source + destination + struct.pack("!II", len(data), protocol)
    return data[:at] + struct.pack("!H", checksum(pseudo + data)) + data[at + 2:]


def network(protocol, source, destination, data):
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(data), protocol, 64) + source + destination + data
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, protocol, 0)
    head += source + destination
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + data


def told(frame, source):
    """What a frame from the network tells the source, or None."""
    v4, packet = len(source) == 4, frame[14:]
    if frame[12:14] != (b"\x08\x00" if v4 else b"\x86\xdd"):
        return None
    to = packet[16:20] if v4 else packet[24:40]
    protocol, data = (packet[9], packet[20:]) if v4 else (packet[6], packet[40:])
    if to != source:
        return None
    if protocol == UDP:
        return "udp " + data[8:struct.unpack("!H", data[4:6])[0]].decode()
    if protocol == TCP:
        flags = [name for bit, name in enumerate(["FIN", "SYN", "RST", "PSH", "ACK"]) if data[13] >> bit & 1]
        return "tcp " + " ".join(flags)
    if protocol in (1, 58) and data[0] in (1, 3):
        return "icmp %d %d" % (data[0], data[1])
    return None


def main(interface, protocol, source, destination, port):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    source, destination = (socket.inet_pton(family, address) for address in (source, destination))
    number = UDP if protocol == "udp" else TCP
    packet = network(number, source, destination, transport(number, source, destination, int(port)))
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((interface, ETH_P_ALL))
    mac = sock.getsockname()[4]
    kind = b"\x08\x00" if family == socket.AF_INET else b"\x86\xdd"
    sock.send(b"\x9a\x55" * 3 + mac + kind + packet)
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        sock.settimeout(max(0.01, end - time.monotonic()))
        try:
            frame, place = sock.recvfrom(65536)
        except OSError:
            break
        answer = told(frame, source) if place[2] != socket.PACKET_OUTGOING else None
        if answer is not None:
            return print(answer)
    print("nothing")


main(*sys.argv[1:])
