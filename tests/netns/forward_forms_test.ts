// SPDX-License-Identifier: GPL-2.0-or-later
/** Every form of -t, -u, -T and -U: which ports are open, and where they lead. */
import { assertEquals } from "@std/assert";
import {
  ask,
  engineOf,
  hostOf,
  openPorts,
  optionsFor,
  type PortOptions,
  portsCommand,
  remoteOf,
  startPorts,
} from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { until } from "../helpers/run.ts";
import { type GuestOptions, type IdleGuest, Net, Testbed } from "../helpers/testbed.ts";

const NEEDS = requirements({ packages: ["python3", "iproute2"], tubetti: true });

/** Ports that servers listen on, and the range that forms may open. */
const SERVED = "8001-8012";

/** A form, the ports it opens, and where some of them lead. */
interface Form {
  name: string;
  spec: string | readonly string[];
  options?: readonly string[];
  opens: readonly number[];
  /** `ADDRESS PORT` as asked: the port that answers, or the error. */
  leads?: Readonly<Record<string, string>>;
  /** From the remote instead of the host. */
  remote?: Readonly<Record<string, string>>;
}

const FORMS: readonly Form[] = [
  { name: "none", spec: "none", opens: [], leads: { "127.0.0.1 8001": "ECONNREFUSED" } },
  {
    name: "a port",
    spec: "8001",
    opens: [8001],
    leads: { "127.0.0.1 8001": "8001", "::1 8001": "8001", [`${Net.HOST4} 8001`]: "8001" },
    remote: { [`${Net.HOST4} 8001`]: "8001", [`${Net.HOST6} 8001`]: "8001" },
  },
  {
    name: "a port to another",
    spec: "8001:8002",
    opens: [8001],
    leads: { "127.0.0.1 8001": "8002", "::1 8001": "8002", "127.0.0.1 8002": "ECONNREFUSED" },
    remote: { [`${Net.HOST4} 8001`]: "8002", [`${Net.HOST6} 8001`]: "8002" },
  },
  {
    name: "a list",
    spec: "8001,8003:8005,8007-8008",
    opens: [8001, 8003, 8007, 8008],
    leads: { "127.0.0.1 8003": "8005", "::1 8008": "8008", "::1 8001": "8001" },
  },
  {
    name: "a range",
    spec: "8001-8004",
    opens: [8001, 8002, 8003, 8004],
    leads: { "127.0.0.1 8001": "8001", "::1 8004": "8004" },
  },
  {
    name: "a range to another",
    spec: "8001-8003:8010-8012",
    opens: [8001, 8002, 8003],
    leads: { "127.0.0.1 8001": "8010", "::1 8002": "8011", "127.0.0.1 8003": "8012" },
  },
  {
    name: "a range without some",
    spec: "8001-8008,~8003-8004,~8006",
    opens: [8001, 8002, 8005, 8007, 8008],
    leads: { "127.0.0.1 8005": "8005", "127.0.0.1 8003": "ECONNREFUSED" },
  },
  {
    name: "an IPv4 address",
    spec: "127.0.0.1/8001-8002",
    opens: [8001, 8002],
    leads: { "127.0.0.1 8002": "8002", "::1 8001": "ECONNREFUSED" },
    remote: { [`${Net.HOST4} 8001`]: "ECONNREFUSED" },
  },
  {
    name: "an IPv6 address",
    spec: "::1/8001:8002",
    opens: [8001],
    leads: { "::1 8001": "8002", "127.0.0.1 8001": "ECONNREFUSED" },
    remote: { [`${Net.HOST6} 8001`]: "ECONNREFUSED" },
  },
  {
    name: "an address, less some ports",
    spec: `${Net.HOST4}/8001-8004,~8002`,
    opens: [8001, 8003, 8004],
    leads: { "127.0.0.1 8001": "ECONNREFUSED", [`${Net.HOST4} 8003`]: "8003" },
    remote: { [`${Net.HOST4} 8001`]: "8001", [`${Net.HOST6} 8001`]: "ECONNREFUSED" },
  },
  {
    name: "an address and an interface",
    spec: `${Net.HOST4}%uplink0/8001`,
    opens: [8001],
    leads: { "127.0.0.1 8001": "ECONNREFUSED" },
    remote: { [`${Net.HOST4} 8001`]: "8001", [`${Net.HOST6} 8001`]: "ECONNREFUSED" },
  },
  {
    name: "an interface",
    spec: "%uplink0/8001",
    opens: [8001],
    leads: { "127.0.0.1 8001": "ECONNREFUSED", "::1 8001": "ECONNREFUSED" },
    remote: { [`${Net.HOST4} 8001`]: "8001", [`${Net.HOST6} 8001`]: "8001" },
  },
  {
    name: "the loopback interface",
    spec: "%lo/8001",
    opens: [8001],
    leads: { "127.0.0.1 8001": "8001", "::1 8001": "8001" },
    remote: { [`${Net.HOST4} 8001`]: "ECONNREFUSED" },
  },
  {
    name: "options given more than once",
    spec: ["8001", "127.0.0.1/8003:8004", "::1/8003:8005"],
    opens: [8001, 8003],
    leads: { "127.0.0.1 8003": "8004", "::1 8003": "8005", "::1 8001": "8001" },
  },
  {
    name: "an address that is not the host's, with --freebind",
    spec: ["203.0.113.77/8001", "2001:db8:77::1/8001"],
    options: ["--freebind"],
    opens: [8001],
    leads: { "127.0.0.1 8001": "ECONNREFUSED" },
  },
];

/** What `expected` says for both protocols, with the source left out of the replies. */
async function assertReplies(
  place: Parameters<typeof ask>[0],
  expected: Readonly<Record<string, string>>,
): Promise<void> {
  const found: Record<string, string> = {}, wanted: Record<string, string> = {};
  for (const [question, answer] of Object.entries(expected)) {
    const [address, port] = question.split(" ");
    const replies = await ask(place, "tcp,udp", port!, address!);
    for (const protocol of ["tcp", "udp"]) {
      const key = `${protocol} ${question}`;
      found[key] = replies[key]!.split(" ")[0]!;
      wanted[key] = answer;
    }
  }
  assertEquals(found, wanted);
}

async function withGuest(
  bed: Testbed,
  options: GuestOptions,
  body: (guest: IdleGuest) => Promise<void>,
): Promise<void> {
  const guest = await bed.idleGuest(options);
  try {
    await body(guest);
  } finally {
    await guest.stop();
  }
}

async function inbound(bed: Testbed, form: Form): Promise<void> {
  const options = [...optionsFor({ t: form.spec, u: form.spec }), ...form.options ?? []];
  await withGuest(bed, { options }, async (guest) => {
    const engine = engineOf(bed);
    assertEquals(openPorts(engine, "tcp"), form.opens);
    assertEquals(openPorts(engine, "udp"), form.opens);
    await startPorts(guest, "who", SERVED);
    await assertReplies(hostOf(bed), form.leads ?? {});
    await assertReplies(remoteOf(bed), form.remote ?? {});
  });
}

/** Forms that a user without any rights gets differently, or that are worth a second look. */
const USER_FORMS = ["a port", "a port to another", "an interface", "an IPv6 address"];

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `forward forms: -t and -u${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      for (const form of FORMS) {
        if (user && !USER_FORMS.includes(form.name)) continue;
        await t.step(`${form.name}: ${[form.spec].flat().join(" ")}`, () => inbound(bed, form));
      }
    },
  });

  Deno.test({
    name: `forward forms: -T and -U${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      await bed.serveHost(portsCommand("who", SERVED), { text: "ready\n" });
      const forms: [spec: string | string[], opens: number[], leads: Record<string, string>][] = [
        ["none", [], { "127.0.0.1 8001": "ECONNREFUSED" }],
        ["8001", [8001], { "127.0.0.1 8001": "8001", "::1 8001": "8001" }],
        ["80:8002", [80], { "127.0.0.1 80": "8002", "::1 80": "8002" }],
        ["8001-8003:8010-8012", [8001, 8002, 8003], { "127.0.0.1 8003": "8012" }],
        ["8001-8004,~8002", [8001, 8003, 8004], { "::1 8004": "8004" }],
        [["8001", "8005:8006"], [8001, 8005], { "::1 8005": "8006", "127.0.0.1 8001": "8001" }],
      ];
      for (const [spec, opens, leads] of user ? forms.slice(1, 3) : forms) {
        await t.step(
          `${spec}`,
          () =>
            withGuest(bed, { options: optionsFor({ T: spec, U: spec }) }, async (guest) => {
              assertEquals(openPorts(guest.pid, "tcp"), opens);
              assertEquals(openPorts(guest.pid, "udp"), opens);
              await assertReplies(guest, leads);
              if (opens.includes(8001)) {
                // only the namespace's own loopback leads to the host's
                const { stdout } = await guest.run(["ip", "-o", "-4", "addr", "show", "dev", "lo"]);
                assertEquals(stdout.includes("127.0.0.1/8"), true, stdout);
              }
            }),
        );
      }
    },
  });
}

/** Options of which some leave UDP out, and the ports that are open then. */
const FOLLOWED: [options: PortOptions, tcp: number[], udp: number[]][] = [
  [{ t: "8001:8002", u: [] }, [8001], [8001]],
  [{ t: "8001-8004,~8002", u: [] }, [8001, 8003, 8004], [8001, 8003, 8004]],
  [{ t: "8001", u: "none" }, [8001], []],
  [{ t: "8001", u: "8003" }, [8001], [8003]],
  [{ t: "none", u: "8003" }, [], [8003]],
];

Deno.test({
  name: "forward forms: without -u, UDP follows -t, as far as it can and without translation",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    for (const [options, tcp, udp] of FOLLOWED) {
      await t.step(
        optionsFor(options).join(" "),
        () =>
          withGuest(bed, { options: optionsFor(options) }, async (guest) => {
            const engine = engineOf(bed);
            assertEquals([openPorts(engine, "tcp"), openPorts(engine, "udp")], [tcp, udp]);
            if (options.t !== "8001:8002") return;
            await startPorts(guest, "who", SERVED);
            const replies = await ask(hostOf(bed), "tcp,udp", "8001", "127.0.0.1");
            assertEquals(replies["tcp 127.0.0.1 8001"]!.split(" ")[0], "8002");
            assertEquals(replies["udp 127.0.0.1 8001"]!.split(" ")[0], "8001");
          }),
      );
    }
    await t.step("a UDP port that is taken is passed over in silence", async () => {
      const taken = ["socat", "-u", "UDP6-LISTEN:8001", "-"];
      const server = await bed.serveHost(taken, { udp: 8001 });
      await withGuest(bed, { options: optionsFor({ t: "8001,8003", u: [] }) }, (guest) => {
        assertEquals(openPorts(engineOf(bed), "udp"), [8001, 8003]);
        assertEquals(/8001/.test(guest.background.stderr), false, guest.background.stderr);
        return Promise.resolve();
      });
      await server.stop();
    });
  },
});

/** An address that the guest has besides its own. */
const SECOND4 = "198.18.0.5";
const SECOND6 = "2001:db8:99::5";

Deno.test({
  name: "forward forms: a target address",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    const specs = [`8001:${SECOND4}/8002`, `8003:[${SECOND6}]/8004`, `8005-8006:${SECOND4}`];
    const options = optionsFor({ t: specs, u: specs, T: `8021:${Net.REMOTE4}/8012` });
    await bed.serveRemote(portsCommand("who", 8012, Net.REMOTE4), { text: "ready\n" });
    const guest = await bed.idleGuest({ options });
    for (const address of [SECOND4, SECOND6]) {
      await guest.run(["ip", "addr", "add", address, "dev", "lo"]);
      await startPorts(guest, "who", SERVED, address); // and on no other
    }
    const everywhere = {
      [`${Net.HOST4} 8001`]: "8002",
      [`${Net.HOST6} 8003`]: "8004",
      [`${Net.HOST4} 8006`]: "8006",
      [`${Net.HOST6} 8001`]: "ECONNREFUSED",
      [`${Net.HOST4} 8003`]: "ECONNREFUSED",
    };
    await t.step("from the host's loopback", () =>
      assertReplies(hostOf(bed), {
        "127.0.0.1 8001": "8002",
        "::1 8003": "8004",
        "127.0.0.1 8006": "8006",
        "::1 8001": "ECONNREFUSED",
        "127.0.0.1 8003": "ECONNREFUSED",
      }));
    await t.step("from the remote", () => assertReplies(remoteOf(bed), everywhere));
    await t.step("of the host's side, for -T", async () => {
      assertEquals(await ask(guest, "tcp", 8021, "127.0.0.1", "::1"), {
        "tcp 127.0.0.1 8021": `8012 ${Net.HOST4}`,
        "tcp ::1 8021": "ECONNREFUSED",
      });
    });
  },
});

Deno.test({
  name: "forward forms: a server that comes later, and one that goes, are nothing special",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    await withGuest(bed, { options: optionsFor({ t: "8001" }) }, async (guest) => {
      const refused = () => ask(hostOf(bed), "tcp", "8001", "127.0.0.1", "::1");
      for (const reply of Object.values(await refused())) {
        assertEquals(["ECONNRESET", "ECONNREFUSED", "EOF"].includes(reply), true, reply);
      }
      const server = await startPorts(guest, "who", "8001");
      for (const reply of Object.values(await refused())) assertEquals(reply.split(" ")[0], "8001");
      await server.stop();
      assertEquals(await until(() => !openPorts(guest.pid, "tcp").includes(8001)), true);
      for (const reply of Object.values(await refused())) {
        assertEquals(["ECONNRESET", "ECONNREFUSED", "EOF"].includes(reply), true, reply);
      }
    });
  },
});
