# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a command on a terminal of its own and talks to it, as a user would.

usage: terminal.py COMMAND [ARG]... <script

Lines of the script: `> TEXT` types a line, `^C` or `^Z` presses the keys, `size ROWS COLUMNS`
changes the window's size, `? TEXT` waits until the text is shown (after what was waited for before).
Prints everything that was shown, and exits with the command's status, or 124 when a wait was too long.
"""
import fcntl, os, pty, select, signal, struct, sys, termios, time

PATIENCE = 20  # seconds


def set_size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    def __init__(self, command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(command[0], command)
        set_size(self.fd, 24, 80)
        self.shown, self.seen = "", 0

    def read(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the other side is closed
            data = b""
        self.shown += data.decode(errors="replace")
        return data != b""

    def wait_for(self, text):
        end = time.monotonic() + PATIENCE
        while (at := self.shown.find(text, self.seen)) < 0:
            if time.monotonic() > end or not self.read(0.2):
                return False
        self.seen = at + len(text)
        return True

    def obey(self, line):
        word, _, rest = line.partition(" ")
        if word == ">":
            os.write(self.fd, rest.encode() + b"\n")  # a line end in every mode
        elif word == "size":
            set_size(self.fd, *map(int, rest.split()))
        elif word == "?":
            return self.wait_for(rest)
        else:
            os.write(self.fd, bytes([ord(word[1]) & 0x1F]))
        return True

    def finish(self):
        end = time.monotonic() + PATIENCE
        while self.read(0.2):
            if time.monotonic() > end:
                return False
        return True


terminal = Terminal(sys.argv[1:])
script = [line.rstrip("\n") for line in sys.stdin if line.strip()]
good = all(terminal.obey(line) for line in script) and terminal.finish()
sys.stdout.write(terminal.shown)
if not good:
    os.kill(terminal.pid, signal.SIGKILL)
_, status = os.waitpid(terminal.pid, 0)
sys.exit(os.waitstatus_to_exitcode(status) if good else 124)
