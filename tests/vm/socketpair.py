# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts a program with one end of a pair of connected sockets, and asks it something by the other.

    socketpair.py FRAME COMMAND...

COMMAND has FD wherever the number of its descriptor belongs. FRAME, in hexadecimal, is sent once
COMMAND has ended with status 0 or has run for half a second, with its length in front. Prints the first
frame that comes back, closes the socket, and ends with COMMAND's status.
"""

import socket
import struct
import subprocess
import sys

WAIT_S = 0.5
ANSWER_S = 15
LENGTH = struct.Struct("!I")


def receive(ours, size):
    data = b""
    while len(data) < size:
        more = ours.recv(size - len(data))
        if not more:
            raise SystemExit("closed")
        data += more
    return data


def main():
    frame, command = bytes.fromhex(sys.argv[1]), sys.argv[2:]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    words = [str(theirs.fileno()) if word == "FD" else word for word in command]
    child = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    try:
        if child.wait(WAIT_S) != 0:
            raise SystemExit(child.returncode)
    except subprocess.TimeoutExpired:
        pass
    ours.settimeout(ANSWER_S)
    ours.sendall(LENGTH.pack(len(frame)) + frame)
    (size,) = LENGTH.unpack(receive(ours, LENGTH.size))
    print(receive(ours, size).hex(), flush=True)
    ours.close()
    raise SystemExit(child.wait(ANSWER_S))


main()
