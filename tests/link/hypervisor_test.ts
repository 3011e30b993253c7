// SPDX-License-Identifier: GPL-2.0-or-later
/** The socket of hypervisors: whose path it is, who may connect, and what is left behind. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { Hypervisor } from "../../lib/link/hypervisor.ts";
import { SysError } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { AF_INET, AF_UNIX, newSocket, SOCK_DGRAM, SOCK_STREAM } from "../../lib/sys/socket.ts";
import { connectUnix, listenUnix } from "../../lib/sys/unix_socket.ts";
import { descriptors } from "../helpers/drive_loop.ts";
import { requirements } from "../helpers/require.ts";

const AS_ROOT = requirements();
const NOBODY = 65534;
const RLIMIT_NOFILE = 7; // asm-generic/resource.h

function inFolder(fn: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync(), before = descriptors();
  try {
    fn(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
  assertEquals(descriptors(), before);
}

/** Whether the other end has closed. */
function ended(fd: number): boolean {
  return libc.recv(fd, new Uint8Array(1), 1, 0) === 0;
}

Deno.test("listen() makes a socket that is ours alone, and close() removes it", () => {
  inFolder((folder) => {
    const path = `${folder}/socket`, hypervisor = Hypervisor.listen(path, false);
    const { mode, isSocket } = Deno.lstatSync(path);
    assertEquals([mode! & 0o777, isSocket, hypervisor.path], [0o600, true, path]);
    assertEquals([hypervisor.fd, hypervisor.accept()], [-1, false]);
    hypervisor.close();
    hypervisor.close();
    assertThrows(() => Deno.lstatSync(path), Deno.errors.NotFound);
  });
});

Deno.test("listen() takes a relative path, and removes it from another folder", () => {
  inFolder((folder) => {
    const cwd = Deno.cwd();
    Deno.chdir(folder);
    try {
      const hypervisor = Hypervisor.listen("socket", false);
      Deno.chdir("/");
      hypervisor.close();
    } finally {
      Deno.chdir(cwd);
    }
    assertEquals([...Deno.readDirSync(folder)], []);
  });
});

Deno.test("listen() takes the path of an owner that is gone", () => {
  inFolder((folder) => {
    const path = `${folder}/socket`;
    libc.close(listenUnix(path, 1));
    const hypervisor = Hypervisor.listen(path, false), fd = connectUnix(path);
    assert(fd >= 0 && hypervisor.accept());
    libc.close(fd);
    hypervisor.close();
  });
});

Deno.test("listen() refuses a path somebody listens on, files, links, long and missing paths", () => {
  inFolder((folder) => {
    const live = `${folder}/live`, fd = listenUnix(live, 1);
    Deno.writeTextFileSync(`${folder}/file`, "");
    Deno.symlinkSync(live, `${folder}/link`);
    const datagrams = newSocket(AF_UNIX, SOCK_DGRAM, 0);
    const name = new TextEncoder().encode(`\x01\0${folder}/datagrams\0`);
    assertEquals(libc.bind(datagrams, name, name.length), 0);
    for (
      const [path, message] of [
        [live, /^-s: bind \S+: EADDRINUSE \(it belongs to another process\)$/],
        [`${folder}/file`, /^-s: bind \S+: EADDRINUSE \(it is there, and no socket\)$/],
        [`${folder}/link`, /^-s: bind \S+: EADDRINUSE \(it is there, and no socket\)$/],
        [`${folder}/datagrams`, /^-s: bind \S+: EPROTOTYPE \(it belongs to another process\)$/],
        [`${folder}/missing/socket`, /^-s: bind \S+: ENOENT$/],
        [`/${"x".repeat(107)}`, /^-s: bind \S+: ENAMETOOLONG \(.* at most 107 bytes\)$/],
      ] as const
    ) {
      const error = assertThrows(() => Hypervisor.listen(path, false), SysError);
      assertMatch(error.message, message);
    }
    const files = [...Deno.readDirSync(folder)].map((file) => file.name).sort();
    assertEquals(files, ["datagrams", "file", "link", "live"]);
    libc.close(datagrams);
    libc.close(fd);
  });
});

Deno.test("listen() without a path takes the first number that is free", () => {
  const number = ({ path }: Hypervisor) => Number(/^\/tmp\/passt_(\d+)\.socket$/.exec(path)![1]);
  const first = Hypervisor.listen(null, false), second = Hypervisor.listen(null, false);
  assert(number(second) > number(first));
  first.close();
  const again = Hypervisor.listen(null, false);
  assert(number(again) <= number(first));
  again.close();
  second.close();
  assertThrows(() => Deno.lstatSync(second.path), Deno.errors.NotFound);
});

Deno.test("close() leaves a path alone that is somebody else's by now", () => {
  inFolder((folder) => {
    const path = `${folder}/socket`, hypervisor = Hypervisor.listen(path, false);
    Deno.removeSync(path);
    const other = Hypervisor.listen(path, false);
    hypervisor.close();
    assert(Deno.lstatSync(path).isSocket);
    other.close();
  });
});

Deno.test("accept() takes one hypervisor at a time, and the next when it has left", () => {
  inFolder((folder) => {
    const hypervisor = Hypervisor.listen(`${folder}/socket`, false), { path } = hypervisor;
    const [first, second] = [connectUnix(path), connectUnix(path)];
    assertEquals([hypervisor.accept(), hypervisor.accept()], [true, false]);
    assertEquals([ended(first), ended(second)], [false, true]);
    hypervisor.disconnect();
    assertEquals([ended(first), hypervisor.fd, hypervisor.over], [true, -1, false]);
    const third = connectUnix(path);
    assert(hypervisor.accept());
    assertEquals(hypervisor.departures, 1);
    hypervisor.close();
    for (const fd of [first, second, third]) libc.close(fd);
  });
});

Deno.test("accept() takes nobody any more when the only one has left", () => {
  inFolder((folder) => {
    const hypervisor = Hypervisor.listen(`${folder}/socket`, true);
    const first = connectUnix(hypervisor.path);
    assertEquals([hypervisor.accept(), hypervisor.over], [true, false]);
    hypervisor.disconnect();
    assert(hypervisor.over);
    const second = connectUnix(hypervisor.path);
    assertEquals([hypervisor.accept(), ended(second)], [false, true]);
    hypervisor.close();
    libc.close(first);
    libc.close(second);
  });
});

Deno.test("accept() sends a second one away also without a free descriptor", () => {
  inFolder((folder) => {
    const hypervisor = Hypervisor.listen(`${folder}/socket`, false);
    const first = connectUnix(hypervisor.path);
    assert(hypervisor.accept());
    const second = connectUnix(hypervisor.path), limit = new BigUint64Array(2);
    libc.getrlimit(RLIMIT_NOFILE, limit);
    // the lowest free number is the limit
    const free = libc.dup(2);
    libc.close(free);
    libc.setrlimit(RLIMIT_NOFILE, BigUint64Array.of(BigInt(free), limit[1]!));
    const accepted = hypervisor.accept();
    libc.setrlimit(RLIMIT_NOFILE, limit);
    assertEquals([accepted, ended(first), ended(second)], [false, false, true]);
    hypervisor.close();
    libc.close(first);
    libc.close(second);
  });
});

Deno.test("connected() takes one end of a socketpair, and all is over when the other is closed", () => {
  const fds = new Int32Array(2);
  libc.socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
  const hypervisor = Hypervisor.connected(fds[0]!);
  assertEquals([hypervisor.fd, hypervisor.listenFd, hypervisor.path], [fds[0], -1, ""]);
  assertEquals([hypervisor.over, hypervisor.accept()], [false, false]);
  assertEquals(libc.fcntl(fds[0]!, 1, 0), 1); // FD_CLOEXEC
  assertEquals(libc.recv(fds[0]!, new Uint8Array(1), 1, 0), -1); // does not block
  libc.close(fds[1]!);
  hypervisor.disconnect();
  assert(hypervisor.over);
  hypervisor.close();
});

Deno.test("connected() refuses what is no connected UNIX stream socket", () => {
  const pipe = new Int32Array(2), pair = new Int32Array(2);
  libc.pipe2(pipe, 0);
  libc.socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
  const lonely = newSocket(AF_UNIX, SOCK_STREAM, 0), tcp = newSocket(AF_INET, SOCK_STREAM, 0);
  for (
    const [fd, message] of [
      [9999, /^-F: getsockopt 9999: EBADF$/],
      [pipe[0]!, /^-F: getsockopt \d+: ENOTSOCK$/],
      [pair[0]!, /^-F \d+: EPROTOTYPE \(it must be a UNIX stream socket\)$/],
      [tcp, /^-F \d+: EPROTOTYPE \(it must be a UNIX stream socket\)$/],
      [lonely, /^-F: getpeername \d+: ENOTCONN \(it must be connected\)$/],
    ] as const
  ) assertMatch(assertThrows(() => Hypervisor.connected(fd), SysError).message, message);
  for (const fd of [...pipe, ...pair, lonely, tcp]) libc.close(fd);
});

Deno.test({
  name: "give() gives the path to another user, and follows no link",
  ...AS_ROOT,
  fn() {
    inFolder((folder) => {
      const path = `${folder}/socket`, hypervisor = Hypervisor.listen(path, false);
      hypervisor.give(NOBODY, NOBODY);
      const { uid, gid } = Deno.lstatSync(path);
      assertEquals([uid, gid], [NOBODY, NOBODY]);
      Deno.removeSync(path);
      Deno.writeTextFileSync(`${folder}/file`, "");
      Deno.symlinkSync(`${folder}/file`, path);
      hypervisor.give(NOBODY, NOBODY);
      assertEquals(Deno.statSync(path).uid, 0);
      hypervisor.close();
    });
  },
});
