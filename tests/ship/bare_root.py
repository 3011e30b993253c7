# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs EXECUTABLE in a root that holds nothing but it (and the link `pasta`), the C library, /dev/net/tun,
/dev/null and /proc, and cannot be written: bare_root.py EXECUTABLE PROGRAM [ARGUMENT...].

A change of root by chroot(2) would not do: the kernel lets nobody make user namespaces there.
"""
import ctypes
import os
import platform
import subprocess
import sys

ROOT = "/mnt"
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[platform.machine()]  # asm/unistd.h
MNT_DETACH = 2  # umount(2)


def sh(*command):
    subprocess.run(command, check=True)


executable, *command = sys.argv[1:]
libraries = [
    word
    for word in subprocess.run(["ldd", executable], capture_output=True, text=True).stdout.split()
    if word.startswith("/")
]
sh("mount", "-t", "tmpfs", "tmpfs", ROOT)
os.chdir(ROOT)
os.makedirs("dev/net")
os.mkdir("proc")
for path in [f"/tubetti", *libraries, "/dev/net/tun", "/dev/null"]:
    source = executable if path == "/tubetti" else path
    os.makedirs(os.path.dirname(ROOT + path), exist_ok=True)
    open(ROOT + path, "w").close()
    sh("mount", "--bind", source, ROOT + path)
os.symlink("tubetti", "pasta")
sh("mount", "--rbind", "/proc", "proc")
sh("mount", "-o", "remount,ro", ROOT)
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(PIVOT_ROOT, b".", b".") or libc.umount2(b".", MNT_DETACH):
    sys.exit(os.strerror(ctypes.get_errno()))
os.chdir("/")
os.execv(command[0], command)
