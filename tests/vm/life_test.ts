// SPDX-License-Identifier: GPL-2.0-or-later
/** The life of the program as passt: its socket, its guests coming and going, and its end. */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { PYTHON } from "../helpers/edge.ts";
import { requirements } from "../helpers/require.ts";
import { describe, markedProcesses, until } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";
import { answers, asked, connectTo, FramePeer, QUESTION } from "./frame_peer.ts";
import { Passt, passtUnderTest } from "./world.ts";

const NEEDS = requirements({ packages: ["python3"] });
const OURS = requirements({ tubetti: true });
const ROUNDS = 10;
const DEFAULT_PATH = /^\/tmp\/passt_([1-9]|[1-5][0-9]|6[0-4])\.socket$/;
const SOCKETPAIR = new URL("socketpair.py", import.meta.url).pathname;

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Leaves a socket's file behind that nobody listens on. */
function leaveStale(path: string): void {
  const listener = Deno.listen({ transport: "unix", path: `${path}.other` });
  Deno.renameSync(`${path}.other`, path); // closing removes the file of the old name only
  listener.close();
  assert(exists(path));
}

Deno.test({
  name: "passt: guests come and go, one at a time",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    await using passt = await Passt.start(bed);
    await t.step("one after the other is answered", async () => {
      for (let round = 0; round < ROUNDS; round++) assert(await asked(passt.socket), `${round}`);
    });
    await t.step("a second one is turned away, and the first does not notice", async () => {
      using first = await FramePeer.connect(passt.socket);
      assert(await first.ask());
      using second = await FramePeer.connect(passt.socket);
      assert(await second.closed());
      assert(await first.ask());
    });
    await t.step("one that leaves in the middle of a frame does no harm", async () => {
      for (const part of [[0], [0, 0, 0], [0, 0, 0, 60], [0, 0, 0, 60, 1, 2, 3]]) {
        const connection = await connectTo(passt.socket);
        await connection.write(new Uint8Array(part));
        connection.close();
      }
      assert(await asked(passt.socket));
    });
    assertEquals(passt.process.code, null);
  },
});

Deno.test({
  name: "passt --one-off: ends with its only guest",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    for (const option of ["--one-off", "-1"]) {
      await using passt = await Passt.start(bed, { options: [option] });
      assert(await asked(passt.socket));
      assertEquals(await passt.ended(), 0, passt.process.stderr);
    }
  },
});

Deno.test({
  name: "passt: without --socket, it takes the first free of /tmp/passt_N.socket",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    await using first = await Passt.start(bed, { socket: null });
    assertMatch(first.socket, DEFAULT_PATH);
    assert(await asked(first.socket));
    {
      await using second = await Passt.start(bed, { socket: null });
      assertMatch(second.socket, DEFAULT_PATH);
      assertNotEquals(second.socket, first.socket);
      assert(await asked(second.socket));
    }
    await t.step("and one whose program was killed is free", async () => {
      await first.process.stop("SIGKILL");
      assert(exists(first.socket));
      await using third = await Passt.start(bed, { socket: null });
      assertEquals(third.socket, first.socket);
      assert(await asked(third.socket));
    });
    await Deno.remove(first.socket).catch(() => {});
  },
});

Deno.test({
  name: "passt --socket: takes the place of a socket that nobody listens on",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-stale-` });
    try {
      const socket = `${folder}/stale`;
      leaveStale(socket);
      await using passt = await Passt.start(bed, { socket });
      assert(await asked(passt.socket));
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "passt --socket: does not touch one that somebody listens on",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    await using passt = await Passt.start(bed);
    const command = [...passtUnderTest(), "-f", "-s", passt.socket];
    const result = await bed.runHost(command, { mark: bed.guestMark });
    assertEquals(result.code, 1, describe(command, result));
    assertEquals(result.stderr.trim().split("\n").length, 1, result.stderr);
    assert(await asked(passt.socket));
  },
});

Deno.test({
  name: "passt: SIGTERM ends it, and takes its socket along",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    for (const connected of [false, true]) {
      await using passt = await Passt.start(bed);
      assert(await asked(passt.socket)); // it serves: before that, the signal ends a start
      using peer = connected ? await FramePeer.connect(passt.socket) : null;
      if (peer) assert(await peer.ask());
      passt.process.kill("SIGTERM");
      assertEquals(await passt.ended(), 0, passt.process.stderr);
      assert(!exists(passt.socket));
      if (peer) assert(await peer.closed());
    }
  },
});

Deno.test({
  name: "passt --runas: a socket that cannot be given to the user is not left behind",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-runas-` });
    try {
      const own = [...passtUnderTest(), "-f", "--runas", "1000", "-s", `${folder}/socket`];
      const command = ["unshare", "--user", "--map-root-user", ...own]; // has one user, who is not 1000
      const result = await bed.runHost(command, { mark: bed.guestMark });
      assertEquals(result.code, 1, describe(command, result));
      assertMatch(result.stderr, /^tubetti: -s: lchown \S+: EINVAL\n$/);
      assert(!exists(`${folder}/socket`));
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "passt: in the background, it is ready when the first process has ended",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-background-` });
    const [socket, pidFile] = [`${folder}/socket`, `${folder}/pid`];
    try {
      const command = [...passtUnderTest(), "-s", socket, "-P", pidFile];
      const result = await bed.runHost(command, { mark: bed.guestMark });
      assertEquals(result.code, 0, describe(command, result));
      assert(await asked(socket));
      const pid = Number(await Deno.readTextFile(pidFile));
      assert(markedProcesses(bed.guestMark).some((found) => found.pid === pid));
      Deno.kill(pid, "SIGTERM");
      assert(await until(() => markedProcesses(bed.guestMark).length === 0));
    } finally {
      bed.killGuests();
      await Deno.remove(folder, { recursive: true });
    }
  },
});

for (const background of [false, true]) {
  const where = background ? "in the background" : "in the foreground";
  Deno.test({
    name: `passt --fd, ${where}: serves a socket that its parent gives it, and ends with it`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create();
      for (const option of ["--fd", "-F"]) {
        const own = [...passtUnderTest(), option, "FD", ...(background ? [] : ["-f"])];
        const command = [PYTHON, SOCKETPAIR, QUESTION, ...own];
        const result = await bed.runHost(command, { mark: bed.guestMark });
        assertEquals(result.code, 0, describe(command, result));
        assert(answers(result.stdout), result.stdout);
        assert(await until(() => markedProcesses(bed.guestMark).length === 0));
      }
    },
  });
}
