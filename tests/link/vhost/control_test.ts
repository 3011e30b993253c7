// SPDX-License-Identifier: GPL-2.0-or-later
/** The device and its link, driven by a front-end that does what it likes. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { capabilities } from "../../../lib/link/vhost/control.ts";
import { libc } from "../../../lib/sys/libc.ts";
import {
  closeAll,
  FakeMemory,
  kick,
  newEventfd,
  newMemfd,
  REQ,
  ringAddress,
  state,
  u64,
} from "../../helpers/fake_vhost.ts";
import {
  assertSilent,
  assertWorks,
  eventfds,
  FEATURES,
  FRAME,
  FROM_GUEST,
  MEMORY,
  REGION,
  TO_GUEST,
  USER,
  VNET,
  withWorld,
} from "./world.ts";

const OFFERED = 0x1c0000170009983n;
const GUEST_TSO4 = 1n << 7n, PROTOCOL_FEATURES = 1n << 30n;

Deno.test("capabilities() is JSON of QEMU's schema", () => {
  assertEquals(JSON.parse(capabilities()), { type: "net" });
});

Deno.test("what is offered is answered byte by byte", () => {
  withWorld((world) => {
    world.tell(REQ.GET_FEATURES);
    world.tell(REQ.GET_PROTOCOL_FEATURES);
    world.tell(REQ.GET_QUEUE_NUM);
    const reply = (request: number, ...value: number[]) => [
      ...[request, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0],
      ...value,
    ];
    assertEquals([...world.front.takeBytes()], [
      ...reply(1, 0x83, 0x99, 0, 0x70, 0x01, 0, 0xc0, 0x01),
      ...reply(15, 8, 0, 0, 0, 0, 0, 0, 0),
      ...reply(17, 1, 0, 0, 0, 0, 0, 0, 0),
    ]);
  });
});

Deno.test("frames cross both ways once the rings are set up, with QEMU's order of messages", () => {
  withWorld((world) => {
    assertSilent(world);
    world.renew();
    for (const index of [0, 1]) world.tell(REQ.SET_VRING_ENABLE, state(index, 1));
    world.setUp({ enable: false });
    for (let k = 0; k < 100; k++) assertWorks(world);
    assertEquals(world.warnings, []);
  });
});

Deno.test("a ring without the bit for protocol features is enabled at once", () => {
  withWorld((world) => {
    world.setUp({ features: FEATURES & ~PROTOCOL_FEATURES, enable: false });
    assertWorks(world);
  });
});

Deno.test("a disabled ring lets nothing through: what the guest sends is dropped", () => {
  withWorld((world) => {
    world.setUp({ enable: false });
    world.guestSends(FRAME);
    kick(world.rings[FROM_GUEST].kick);
    world.guestOffers(1);
    world.rig.settle();
    world.rig.send(FRAME);
    world.rig.settle();
    assertEquals([world.rig.take(), world.rings[FROM_GUEST].takeUsed()], [[], [0]]);
    assertEquals(world.rings[TO_GUEST].takeUsed(), []);
    for (const index of [0, 1]) world.tell(REQ.SET_VRING_ENABLE, state(index, 1));
    assertWorks(world);
    for (const index of [0, 1]) world.tell(REQ.SET_VRING_ENABLE, state(index, 0));
    world.guestOffers(1);
    world.rig.send(FRAME);
    world.rig.settle();
    assertEquals(world.rings[TO_GUEST].takeUsed(), []);
    for (const index of [0, 1]) world.tell(REQ.SET_VRING_ENABLE, state(index, 1));
    assertEquals(world.rig.send(FRAME), 0);
    world.rig.settle();
    assertEquals(world.rings[TO_GUEST].takeUsed(), [VNET + FRAME.length]);
  });
});

Deno.test("GET_VRING_BASE stops a ring, and it goes on from there", () => {
  withWorld((world) => {
    world.setUp();
    for (let k = 0; k < 5; k++) assertWorks(world);
    let open = eventfds();
    for (const index of [TO_GUEST, FROM_GUEST]) {
      world.tell(REQ.GET_VRING_BASE, state(index, 0));
      assertEquals([...world.front.takeBytes()], [
        ...[11, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0],
        ...[index, 0, 0, 0, 5, 0, 0, 0],
      ]);
      assertEquals(eventfds(), --open); // its kick
    }
    assertEquals(world.link.pending, false);
    for (const index of [TO_GUEST, FROM_GUEST]) {
      world.prepare(index, 5);
      assertEquals(world.start(index), 0n);
    }
    assertWorks(world);
    assertEquals(world.warnings, []);
  });
});

Deno.test("new memory while rings run: they move over", () => {
  withWorld((world) => {
    world.setUp();
    assertWorks(world);
    const more = new FakeMemory(1 << 16);
    const second = { guest: 0n, size: 0x10000n, user: 0x1000n, offset: 0n };
    assertEquals(world.setMemory([second, REGION], [more.fd, world.memory.fd]), 0n);
    assertWorks(world);
    assertEquals(world.setMemory([REGION, REGION], [more.fd, more.fd]), 1n); // they overlap
    assertWorks(world);
    // no ring lies in it any more
    assertEquals(world.setMemory([second], [more.fd]), 1n);
    assertSilent(world);
    more.close();
  });
});

Deno.test("SET_FEATURES takes parts of what was offered, and nothing else", () => {
  withWorld((world) => {
    world.tell(REQ.SET_PROTOCOL_FEATURES, u64(8));
    for (let bit = 0n; bit < 64n; bit++) {
      const offered = (OFFERED >> bit & 1n) === 1n;
      const answer = world.ask(REQ.SET_FEATURES, u64(FEATURES | 1n << bit));
      assertEquals(answer, offered ? 0n : 1n, `bit ${bit}`);
    }
    assertEquals(world.ask(REQ.SET_FEATURES, u64(0)), 0n); // a header of 10 bytes: no ring will start
    assertEquals(world.ask(REQ.SET_FEATURES, u64(1n << 15n)), 0n);
    assertEquals([world.link.tso, world.link.uso], [false, false]);
    assertEquals(world.ask(REQ.SET_FEATURES, u64(OFFERED)), 0n);
    assertEquals(world.warnings.length, 1); // of a second
  });
});

Deno.test("super-frames are sent to a guest that takes them, over a ring that has room", () => {
  const bits = { tso4: 1n << 7n, tso6: 1n << 8n, uso4: 1n << 54n, uso6: 1n << 55n, csum: 1n << 1n };
  const off = [[0n, true, true], [bits.tso4, false, true], [bits.tso6, false, true]] as const;
  const more = [[bits.uso4, true, false], [bits.uso6, true, false]] as const;
  for (const [bit, tso, uso] of [...off, ...more, [bits.csum, false, false] as const]) {
    withWorld((world) => {
      world.negotiate(OFFERED & ~bit);
      world.setMemory();
      const large = { desc: USER + 0x4000n, avail: USER + 0x8000n, used: USER + 0x9000n };
      world.tell(REQ.SET_VRING_NUM, state(TO_GUEST, 256));
      world.tell(REQ.SET_VRING_ADDR, ringAddress(TO_GUEST, large));
      world.start(TO_GUEST);
      assertEquals([world.link.tso, world.link.uso], [tso, uso]);
    });
  }
});

Deno.test("features cannot change while a ring is in use", () => {
  withWorld((world) => {
    world.setUp();
    assertEquals(world.ask(REQ.SET_FEATURES, u64(FEATURES)), 0n); // no change
    assertEquals(world.ask(REQ.SET_FEATURES, u64(FEATURES & ~GUEST_TSO4)), 1n);
    assertEquals(world.ask(REQ.SET_VRING_NUM, state(0, 8)), 1n);
    assertEquals(world.ask(REQ.SET_VRING_BASE, state(0, 8)), 1n);
    assertEquals(world.ask(REQ.SET_VRING_ADDR, ringAddress(0, world.place(1))), 1n);
    assertWorks(world);
  });
});

Deno.test("a driver too old for our header gets no network, and costs nobody the connection", () => {
  withWorld((world) => {
    world.setUp({ features: 1n << 29n });
    world.guestSends(new Uint8Array(60));
    kick(world.rings[FROM_GUEST].kick);
    world.rig.settle();
    assertEquals(world.ask(REQ.GET_VRING_BASE, state(FROM_GUEST, 0)) >> 32n, 0n);
    assertEquals(world.warnings.length, 1);
  });
});

/** What is refused of a ring that is otherwise set up; each needs a prepared ring 0. */
const REFUSED: Record<string, [request: number, payload: Uint8Array, fds?: number]> = {
  "no descriptors": [REQ.SET_VRING_NUM, state(0, 0)],
  "no power of two": [REQ.SET_VRING_NUM, state(0, 24)],
  "too large a ring": [REQ.SET_VRING_NUM, state(0, 65536)],
  "a giant ring": [REQ.SET_VRING_NUM, state(0, 0x80000000)],
  "another ring's size": [REQ.SET_VRING_NUM, state(2, 16)],
  "another ring's base": [REQ.SET_VRING_BASE, state(2, 0)],
  "a base of more than 16 bits": [REQ.SET_VRING_BASE, state(0, 0x10000)],
  "another ring's place": [REQ.SET_VRING_ADDR, ringAddress(2, { desc: 0n, used: 0n, avail: 0n })],
  "a dirty log": [
    REQ.SET_VRING_ADDR,
    ringAddress(0, { desc: USER, used: USER, avail: USER, flags: 1 }),
  ],
  "another ring's state": [REQ.SET_VRING_ENABLE, state(2, 1)],
  "neither on nor off": [REQ.SET_VRING_ENABLE, state(0, 2)],
  "polling": [REQ.SET_VRING_KICK, u64(0x100)],
  "another ring's kick": [REQ.SET_VRING_KICK, u64(2), 1],
  "another ring's call": [REQ.SET_VRING_CALL, u64(0xff), 1],
  "unknown protocol features": [REQ.SET_PROTOCOL_FEATURES, u64(9)],
  "another ring's index": [REQ.GET_VRING_BASE, state(7, 0)],
  "a log": [REQ.SET_LOG_BASE, u64(0), 1],
  "a log's descriptor": [REQ.SET_LOG_FD, new Uint8Array(0), 1],
  "a configuration": [REQ.GET_CONFIG, new Uint8Array(12 + 8)],
  "a memory slot": [REQ.ADD_MEM_REG, new Uint8Array(40), 1],
};

for (const [name, [request, payload, count = 0]] of Object.entries(REFUSED)) {
  Deno.test(`what cannot be met is refused: ${name}`, () => {
    withWorld((world) => {
      world.setUp();
      const fds = Array.from({ length: count }, newEventfd), open = eventfds();
      assertEquals(world.ask(request, payload, fds), 1n);
      assertEquals(world.warnings.length, 1);
      assertMatch(world.warnings[0], /^WARN\w* vhost-user: [A-Z_]+ refused: .+/);
      assertWorks(world);
      assert(eventfds() <= open);
      // who does not want to know is cut off
      world.tell(request, payload, { fds });
      assertEquals([...world.front.takeBytes()], []);
      assert(world.front.ended);
      assertEquals(eventfds(), open - 6);
      closeAll(fds);
    });
  });
}

Deno.test("migration is refused in the words of the protocol", () => {
  withWorld((world) => {
    world.setUp();
    const fd = newEventfd();
    world.tell(REQ.SET_DEVICE_STATE_FD, state(0, 0), { fds: [fd] });
    assertEquals(world.front.number(), 0x101n);
    world.tell(REQ.CHECK_DEVICE_STATE);
    assertEquals(world.front.number(), 1n);
    assertWorks(world);
    assertMatch(world.warnings[0], /migration is not supported/);
    libc.close(fd);
  });
});

/** Places where no ring can be. */
const END = USER + BigInt(MEMORY);
const PLACES: Record<string, { desc?: bigint; used?: bigint; avail?: bigint }> = {
  "outside": { desc: 0x1000n },
  "before the memory": { avail: USER - 2n },
  "over its end": { used: END - 64n },
  "at the end of all addresses": { desc: (1n << 64n) - 16n },
  "descriptors not aligned": { desc: USER + 8n },
  "available ring not aligned": { avail: USER + 0x1001n },
  "used ring not aligned": { used: USER + 0x1002n },
};

for (const [name, place] of Object.entries(PLACES)) {
  Deno.test(`a ring is not started where it cannot be: ${name}`, () => {
    withWorld((world) => {
      world.negotiate();
      world.setMemory();
      world.prepare(0);
      world.tell(REQ.SET_VRING_ADDR, ringAddress(0, { ...world.place(0), ...place }));
      assertEquals(world.start(0), 1n);
      assertEquals(world.ask(REQ.SET_VRING_ADDR, ringAddress(0, world.place(0))), 0n);
      assertEquals(world.start(0), 0n);
    });
  });
}

Deno.test("a ring is not started before all it needs is there", () => {
  withWorld((world) => {
    world.tell(REQ.SET_PROTOCOL_FEATURES, u64(8));
    assertEquals(world.start(0), 1n);
    world.tell(REQ.SET_FEATURES, u64(FEATURES));
    assertEquals(world.start(0), 1n);
    world.prepare(0);
    assertEquals(world.start(0), 1n); // no memory
    assertEquals(world.setMemory(), 0n);
    assertEquals(world.start(0), 0n);
  });
});

Deno.test("descriptors of other kinds are refused or do no harm", () => {
  withWorld((world) => {
    world.setUp();
    const file = newMemfd(4096), pipe = new Int32Array(2);
    libc.pipe2(pipe, 0);
    assertEquals(world.ask(REQ.SET_VRING_KICK, u64(0), [file]), 1n); // epoll does not take it
    assertEquals(world.ask(REQ.SET_VRING_KICK, u64(0), [pipe[0]]), 0n);
    assertEquals(world.ask(REQ.SET_VRING_CALL, u64(0), [pipe[1]]), 0n);
    for (let k = 0; k < 10_000; k++) libc.write(pipe[1], new Uint8Array(8), 8); // it is full now
    world.guestOffers(1);
    kick(pipe[1]);
    world.rig.settle();
    world.rig.send(FRAME);
    world.rig.settle();
    assertEquals(world.rings[TO_GUEST].takeUsed(), [VNET + FRAME.length]);
    assertEquals(world.ask(REQ.SET_VRING_CALL, u64(0x100)), 0n); // polls
    world.guestOffers(1);
    world.rig.send(FRAME);
    world.rig.settle();
    assertEquals(world.rings[TO_GUEST].takeUsed(), [VNET + FRAME.length]);
    closeAll([file, ...pipe]);
  });
});
