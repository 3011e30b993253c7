// SPDX-License-Identifier: GPL-2.0-or-later
/** Messages as bytes: whole, torn, out of form, with descriptors where none belong. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { MessageReader, Read, replyState, replyU64 } from "../../../lib/link/vhost/messages.ts";
import { libc } from "../../../lib/sys/libc.ts";
import { descriptors } from "../../helpers/drive_loop.ts";
import {
  closeAll,
  FakeFrontEnd,
  memoryTable,
  message,
  newEventfd,
  REQ,
  ringAddress,
  state,
  u64,
  V1_ACK,
} from "../../helpers/fake_vhost.ts";
import { REGION } from "./world.ts";

/** Runs a test with a reader at the other end; no descriptor may be left over. */
function withReader(
  fn: (front: FakeFrontEnd, read: () => number, reader: MessageReader) => void,
): void {
  const before = descriptors(), { front, fd } = FakeFrontEnd.pair();
  const reader = new MessageReader();
  try {
    fn(front, () => reader.read(fd), reader);
  } finally {
    reader.next();
    front.close();
    libc.close(fd);
  }
  assertEquals(descriptors(), before);
}

function withEventfds(count: number, fn: (fds: number[]) => void): void {
  const fds = Array.from({ length: count }, newEventfd);
  try {
    fn(fds);
  } finally {
    closeAll(fds);
  }
}

Deno.test("MessageReader reads the fields of each kind of payload", () => {
  withReader((front, read, reader) => {
    front.raw(Uint8Array.of(...[2, 0, 0, 0], ...[9, 0, 0, 0], ...[8, 0, 0, 0]));
    front.raw(Uint8Array.of(0x80, 0, 0, 0, 1, 0, 0, 0xc0));
    assertEquals(read(), Read.WHOLE);
    assertEquals([reader.request, reader.size, reader.needReply], [2, 8, true]);
    assertEquals(reader.u64, 0xc000000100000080n);
    reader.next();
    front.send(REQ.SET_VRING_NUM, state(1, 256));
    assertEquals(read(), Read.WHOLE);
    assertEquals([reader.index, reader.number, reader.needReply], [1, 256, false]);
    reader.next();
    front.send(REQ.SET_VRING_ADDR, ringAddress(1, { desc: 16n, used: 32n, avail: 1n << 63n }));
    assertEquals(read(), Read.WHOLE);
    const wanted = { flags: 0, descriptors: 16n, used: 32n, available: 1n << 63n };
    assertEquals([reader.index, reader.addresses()], [1, wanted]);
  });
});

Deno.test("MessageReader puts a message together that is torn at any byte", () => {
  withEventfds(2, (fds) => {
    const bytes = message(REQ.SET_MEM_TABLE, memoryTable([REGION, REGION]), { flags: V1_ACK });
    for (let cut = 1; cut < bytes.length; cut++) {
      withReader((front, read, reader) => {
        front.raw(bytes.subarray(0, cut), fds);
        assertEquals(read(), Read.WAIT);
        front.raw(bytes.subarray(cut));
        assertEquals(read(), Read.WHOLE);
        assertEquals(reader.regions().map(({ guestAddress }) => guestAddress), [
          REGION.guest,
          REGION.guest,
        ]);
        const taken = reader.takeFds();
        assertEquals(taken.length, 2);
        closeAll(taken);
      });
    }
  });
});

Deno.test("MessageReader tells messages apart that come at once, and their descriptors", () => {
  withEventfds(1, ([fd]) => {
    withReader((front, read, reader) => {
      front.send(REQ.GET_FEATURES);
      front.send(REQ.SET_VRING_CALL, u64(1), { fds: [fd] });
      front.send(REQ.SET_OWNER);
      const seen: unknown[] = [];
      for (let k = 0; k < 3; k++) {
        assertEquals(read(), Read.WHOLE);
        const fds = reader.takeFds();
        seen.push([reader.request, fds.length]);
        closeAll(fds);
        reader.next();
      }
      assertEquals(seen, [[REQ.GET_FEATURES, 0], [REQ.SET_VRING_CALL, 1], [REQ.SET_OWNER, 0]]);
      assertEquals(read(), Read.WAIT);
    });
  });
});

Deno.test("MessageReader sees the end of the stream, also within a message", () => {
  for (const sent of [0, 1, 11, 12, 15]) {
    withReader((front, read) => {
      front.raw(message(REQ.SET_FEATURES, u64(0)).subarray(0, sent));
      libc.shutdown(front.fd, 1);
      assertEquals(read(), Read.END, `${sent}`);
    });
  }
});

/** Messages that no front-end may send; number of descriptors beside them. */
const BAD: Record<string, [bytes: Uint8Array, fds: number, problem: RegExp]> = {
  "version 0": [message(REQ.GET_FEATURES, undefined, { flags: 0 }), 0, /^version 0$/],
  "version 2": [message(REQ.GET_FEATURES, undefined, { flags: 2 }), 0, /^version 2$/],
  "version 3": [message(REQ.GET_FEATURES, undefined, { flags: 3 }), 0, /^version 3$/],
  "a reply": [message(REQ.GET_FEATURES, undefined, { flags: 5 }), 0, /^flags 0x5$/],
  "unknown flags": [message(REQ.GET_FEATURES, undefined, { flags: 0x11 }), 0, /^flags 0x11$/],
  "request 0": [message(0), 0, /^unknown request 0$/],
  "an unknown request": [message(44), 0, /^unknown request 44$/],
  "a large request": [message(0xffffffff), 0, /^unknown request 4294967295$/],
  "a giant payload": [
    message(REQ.SET_FEATURES, u64(0), { size: 0xffffffff }),
    0,
    /^SET_FEATURES of 4294967295 bytes$/,
  ],
  "too large a payload": [message(REQ.GET_CONFIG, undefined, { size: 513 }), 0, /of 513 bytes$/],
  "no payload": [message(REQ.SET_FEATURES), 0, /^SET_FEATURES of 0 bytes$/],
  "a short payload": [message(REQ.SET_FEATURES, new Uint8Array(7)), 0, /of 7 bytes$/],
  "a long payload": [message(REQ.SET_FEATURES, new Uint8Array(9)), 0, /of 9 bytes$/],
  "payload where none belongs": [message(REQ.GET_FEATURES, u64(0)), 0, /of 8 bytes$/],
  "short addresses": [message(REQ.SET_VRING_ADDR, new Uint8Array(32)), 0, /of 32 bytes$/],
  "a table without size": [message(REQ.SET_MEM_TABLE), 0, /of 0 bytes$/],
  "half a table's size": [message(REQ.SET_MEM_TABLE, new Uint8Array(4)), 0, /of 4 bytes$/],
  "a table shorter than it says": [
    message(REQ.SET_MEM_TABLE, memoryTable([REGION], 2)),
    2,
    /of 40 bytes$/,
  ],
  "a table that counts too far": [
    message(REQ.SET_MEM_TABLE, memoryTable([REGION], 0xffffffff)),
    1,
    /of 40 bytes$/,
  ],
  "a table with less descriptors": [
    message(REQ.SET_MEM_TABLE, memoryTable([REGION, REGION])),
    1,
    /with 1 descriptors$/,
  ],
  "a table with more descriptors": [
    message(REQ.SET_MEM_TABLE, memoryTable([REGION])),
    2,
    /with 2 descriptors$/,
  ],
  "descriptors where none belong": [message(REQ.GET_FEATURES), 3, /with 3 descriptors$/],
  "no descriptor": [message(REQ.SET_VRING_KICK, u64(0)), 0, /with 0 descriptors$/],
  "two descriptors": [message(REQ.SET_VRING_CALL, u64(0)), 2, /with 2 descriptors$/],
  "one although there is none": [message(REQ.SET_VRING_CALL, u64(0x100)), 1, /with 1 descr/],
  "too many descriptors": [message(REQ.SET_OWNER), 40, /that are not taken$/],
};

for (const [name, [bytes, count, problem]] of Object.entries(BAD)) {
  Deno.test(`MessageReader finds what is wrong: ${name}`, () => {
    withEventfds(count, (fds) => {
      withReader((front, read, reader) => {
        front.raw(bytes, fds);
        assertEquals(read(), Read.BROKEN);
        assertMatch(reader.problem, problem);
      });
    });
  });
}

Deno.test("MessageReader receives descriptors that are closed by execve()", () => {
  withEventfds(1, ([fd]) => {
    withReader((front, read, reader) => {
      front.send(REQ.SET_VRING_ERR, u64(0), { fds: [fd] });
      assertEquals(read(), Read.WHOLE);
      const [received] = reader.takeFds();
      assertEquals(libc.fcntl(received, 1, 0) & 1, 1); // F_GETFD, FD_CLOEXEC
      libc.close(received);
    });
  });
});

Deno.test("MessageReader keeps to the limit when descriptors come with each part of a message", () => {
  withEventfds(8, (fds) => {
    withReader((front, read, reader) => {
      const bytes = message(REQ.SET_MEM_TABLE, memoryTable(new Array(8).fill(REGION)));
      for (let at = 0; at < 64; at += 8) front.raw(bytes.subarray(at, at + 8), fds);
      front.raw(bytes.subarray(64));
      assertEquals(read(), Read.BROKEN);
      assert(reader.problem.endsWith("that are not taken"), reader.problem);
    });
  });
});

Deno.test("replyU64() and replyState() are what the protocol says, byte by byte", () => {
  const header = [11, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0];
  assertEquals([...replyState(11, 1, 0x1234)], [...header, 1, 0, 0, 0, 0x34, 0x12, 0, 0]);
  assertEquals([...replyU64(11, 0x0102n << 48n)], [...header, 0, 0, 0, 0, 0, 0, 2, 1]);
});
