// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `deno run -A scripts/podman_root.ts`: builds the Debian 13 root that the tests with podman run in,
 * and prints its path. Takes a minute or two and half a gigabyte, once.
 *
 * The root is made by debootstrap(8), as root, from the mirror that apt is configured for here. It
 * is in `/var/cache/tubetti-podman`, or in the folder that `TUBETTI_PODMAN_CACHE` names. Another
 * list of packages makes another root, and the one before is removed.
 *
 * @module
 */
import { bringPackages } from "../tests/helpers/packages.ts";
import { describe, must, run } from "../tests/helpers/run.ts";

/** Version of Debian: the first whose podman has pasta as its default network. */
const SUITE = "trixie";

/** What is in the root, beside a minimal Debian. */
const PACKAGES = [
  "aardvark-dns",
  "catatonit", // reaps processes; pods' first container
  "crun",
  "curl",
  "iproute2",
  "iputils-ping",
  "netavark",
  "netcat-openbsd",
  "nftables",
  "passt", // to compare with
  "podman",
  "procps",
  "socat",
  "uidmap",
] as const;

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const BUILD_TIMEOUT_MS = 1_200_000;

/** Files that podman mounts something on, which it can't make in a root that is not its user's. */
const MOUNT_POINTS = ["etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv"];

/** Where roots are kept. */
function cacheFolder(): string {
  return Deno.env.get("TUBETTI_PODMAN_CACHE") ?? "/var/cache/tubetti-podman";
}

/** The mirror that apt has for Debian itself: not that of its security updates, or of others. */
async function mirror(): Promise<string> {
  const format = "$(RELEASE) $(REPO_URI)";
  const filters = ["Created-By: Packages", "Origin: Debian", "Component: main"];
  const lines = await must(["apt-get", "indextargets", "--format", format, ...filters]);
  const found = lines.split("\n").map((line) => line.split(" ")).find(([release, uri]) =>
    uri?.startsWith("http") && release !== undefined && !release.includes("-")
  );
  if (!found) throw new Error("apt has no mirror of Debian here");
  return found[1]!;
}

/** Makes what podman expects of a root, and takes out what is this machine's own. */
async function finish(root: string): Promise<void> {
  await Deno.remove(`${root}/etc/mtab`).catch(() => {});
  await Deno.symlink("/proc/self/mounts", `${root}/etc/mtab`);
  for (const file of MOUNT_POINTS) await Deno.writeTextFile(`${root}/${file}`, "");
  await Deno.remove(`${root}/var/cache/apt/archives`, { recursive: true });
}

/** The folder's name carries what is in it. */
async function rootName(): Promise<string> {
  const bytes = new TextEncoder().encode(PACKAGES.join(" "));
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return `${SUITE}-${Deno.build.arch}-${hash.toHex().slice(0, 8)}`;
}

/** Removes the roots made from other lists, and what was not finished. */
async function removeOthers(): Promise<void> {
  await Deno.mkdir(cacheFolder(), { recursive: true });
  for await (const { name } of Deno.readDir(cacheFolder())) {
    const path = `${cacheFolder()}/${name}`;
    if (name.startsWith(`${SUITE}-`)) await Deno.remove(path, { recursive: true });
  }
}

async function build(root: string): Promise<void> {
  const missing = await bringPackages(["debootstrap"]);
  if (missing.length > 0) throw new Error("needs the package debootstrap");
  const uri = await mirror();
  await removeOthers();
  const partial = `${root}.partial`;
  await Deno.mkdir(partial, { recursive: true });
  const options = ["--variant=minbase", `--include=${PACKAGES.join(",")}`, `--keyring=${KEYRING}`];
  const command = ["debootstrap", ...options, SUITE, partial, uri];
  const result = await run(command, { timeoutMs: BUILD_TIMEOUT_MS });
  if (result.code !== 0) throw new Error(describe(["debootstrap", SUITE], result));
  await finish(partial);
  await Deno.rename(partial, root);
}

/**
 * Path of the root, which is built if it is not there.
 *
 * @throws Error when it cannot be built; says why
 */
export async function podmanRoot(): Promise<string> {
  const root = `${cacheFolder()}/${await rootName()}`;
  const there = await Deno.stat(root).then(() => true, () => false);
  if (!there) {
    if (Deno.uid() !== 0) throw new Error("needs root to build a Debian root");
    await build(root);
  }
  return root;
}

if (import.meta.main) {
  const began = performance.now();
  console.log(await podmanRoot());
  console.log(`${Math.round((performance.now() - began) / 1000)} s`);
}
