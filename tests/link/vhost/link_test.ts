// SPDX-License-Identifier: GPL-2.0-or-later
/** The link's life: guests that break rings, front-ends that break the protocol, and those that leave. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  kick,
  memoryTable,
  message,
  REQ,
  ringAddress,
  state,
  takeEvents,
  u64,
  V1_ACK,
} from "../../helpers/fake_vhost.ts";
import {
  assertSilent,
  assertWorks,
  eventfds,
  FEATURES,
  FROM_GUEST,
  leave,
  mappings,
  REGION,
  withListening,
  withWorld,
  type World,
} from "./world.ts";

const GUEST_TSO4 = 1n << 7n;

Deno.test("a front-end that passes its own socket does not keep its connection alive by that", () => {
  for (const bytes of [message(REQ.SET_VRING_CALL, u64(0)), Uint8Array.of(1, 2, 3)]) {
    withListening((world) => {
      world.connect();
      world.front.raw(bytes, [world.front.fd]);
      world.rig.settle();
      world.front.close();
      world.rig.settle();
      assertEquals(world.hypervisor.fd, -1);
      world.connect();
    });
  }
});

Deno.test("a guest that breaks a ring only stops its device, until that is set up again", () => {
  withWorld((world) => {
    world.setUp();
    assertWorks(world);
    for (let round = 0; round < 3; round++) {
      world.rings[FROM_GUEST].offer(round === 1 ? 0xffff : 200);
      kick(world.rings[FROM_GUEST].kick);
      world.rig.settle();
      assertEquals(takeEvents(world.rings[FROM_GUEST].err), 1);
      assertSilent(world);
      world.rig.settle();
      assertEquals(takeEvents(world.rings[FROM_GUEST].err), 0);
      // its driver resets the device
      for (const index of [0, 1]) {
        world.tell(REQ.GET_VRING_BASE, state(index, 0));
        assert(world.front.reply() !== null);
      }
      world.renew();
      for (const index of [0, 1]) {
        world.prepare(index);
        assertEquals(world.start(index), 0n);
      }
      assertWorks(world);
    }
    assertEquals(world.warnings.length, 1); // of a second
    assertMatch(world.warnings[0], /the guest has broken ring 1 \(descriptor beyond the table\)/);
  });
});

Deno.test("what is out of form ends the connection with one line and no reply", () => {
  withWorld((world) => {
    world.setUp();
    world.front.raw(message(REQ.SET_FEATURES, u64(0), { size: 7, flags: V1_ACK }));
    world.rig.settle();
    assertEquals([...world.front.takeBytes()], []);
    assert(world.front.ended && world.rig.gone);
    assertEquals(world.warnings, [
      "WARN vhost-user: SET_FEATURES of 7 bytes: the connection is ended",
    ]);
  });
});

Deno.test("who does not read replies is cut off", () => {
  withWorld((world) => {
    for (let k = 0; k < 200_000 && !world.rig.gone; k++) {
      if (world.front.raw(message(REQ.GET_FEATURES)) < 0) world.rig.turn();
    }
    assert(world.rig.gone);
  });
});

/** Messages of a whole set-up, one by one. */
function script(world: World): [Uint8Array, number[]][] {
  const list: [Uint8Array, number[]][] = [
    [message(REQ.GET_FEATURES), []],
    [message(REQ.SET_PROTOCOL_FEATURES, u64(8)), []],
    [message(REQ.SET_FEATURES, u64(FEATURES)), []],
    [message(REQ.SET_MEM_TABLE, memoryTable([REGION]), { flags: V1_ACK }), [world.memory.fd]],
  ];
  for (const index of [0, 1]) {
    const { kick, call, err } = world.rings[index];
    list.push(
      [message(REQ.SET_VRING_NUM, state(index, 16)), []],
      [message(REQ.SET_VRING_BASE, state(index, 0)), []],
      [message(REQ.SET_VRING_ADDR, ringAddress(index, world.place(index))), []],
      [message(REQ.SET_VRING_CALL, u64(index)), [call]],
      [message(REQ.SET_VRING_ERR, u64(index)), [err]],
      [message(REQ.SET_VRING_KICK, u64(index)), [kick]],
      [message(REQ.SET_VRING_ENABLE, state(index, 1)), []],
    );
  }
  return list;
}

Deno.test("a front-end may leave after any byte of any message, and the next one begins anew", () => {
  withListening((world) => {
    const { length } = script(world), open = [eventfds(), mappings()];
    for (let last = 0; last < length; last++) {
      for (const part of [0, 1, 12, 13, Infinity]) {
        world.connect();
        const list = script(world), [bytes, fds] = list[last];
        for (const [bytes, fds] of list.slice(0, last)) world.front.raw(bytes, fds);
        if (part > 0) world.front.raw(bytes.subarray(0, part), fds);
        world.rig.settle();
        if (last % 2 === 0) leave(world);
        world.front.close();
        world.rig.settle();
        assertEquals(world.hypervisor.fd, -1);
        assertEquals([eventfds(), mappings()], open);
      }
    }
    world.connect();
    world.setUp();
    assertWorks(world);
    leave(world);
    assertSilent(world);
    assertEquals(world.warnings, []);
  });
});

Deno.test("a front-end that comes again finds the device as the first one did", () => {
  withListening((world) => {
    for (let round = 0; round < 20; round++) {
      world.connect();
      world.setUp({ features: round % 2 ? FEATURES : FEATURES & ~GUEST_TSO4 });
      assertWorks(world);
      world.front.close();
      world.rig.settle();
      assertEquals(world.rig.link.guests, round + 1);
      world.renew();
    }
    world.connect();
    assertSilent(world);
  });
});
