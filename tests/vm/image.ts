// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a guest is made of: the kernel of Debian's cloud images with the modules for virtio devices,
 * and a file system in memory with busybox, a few programs of this machine, and `init.sh`.
 *
 * The kernel's package is unpacked, not installed: installing would set a boot loader up. It is kept
 * in `/var/cache/tubetti-vm`, or in the folder that `TUBETTI_VM_CACHE` names.
 *
 * @module
 */
import { peer } from "../helpers/peer.ts";
import { must, run } from "../helpers/run.ts";
import { CpioWriter } from "./cpio.ts";

/** What guests need of this machine. */
export const VM_PACKAGES = [
  "busybox-static",
  "gcc",
  "iperf3",
  "isc-dhcp-client",
  "qemu-system-x86",
  "socat",
] as const;

/** The package that depends on the newest kernel for virtual machines. */
const KERNEL_PACKAGE = "linux-image-cloud-amd64";
const DOWNLOAD_TIMEOUT_MS = 300_000;

/** Modules, below `kernel/`, in the order in which they are loaded: each after what it needs. */
const MODULES = [
  "drivers/virtio/virtio_ring",
  "drivers/virtio/virtio",
  "drivers/virtio/virtio_pci_legacy_dev",
  "drivers/virtio/virtio_pci_modern_dev",
  "drivers/virtio/virtio_pci",
  "drivers/char/virtio_console",
  "net/core/failover",
  "drivers/net/net_failover",
  "drivers/net/virtio_net",
] as const;

/** Programs of this machine that guests have, with the libraries they are linked with. */
const PROGRAMS = ["/usr/bin/iperf3", "/usr/bin/socat", "/usr/sbin/dhclient"] as const;

/** Busybox's programs that are in the way of better ones. */
const NOT_FROM_BUSYBOX: readonly string[] = ["busybox", "linuxrc"];

const MODE_PROGRAM = 0o755;
/** The console's numbers: Documentation/admin-guide/devices.txt. */
const CONSOLE = [5, 1] as const;

/** Files that a guest is started from. */
export interface Image {
  readonly kernel: string;
  readonly initramfs: string;
}

let made: Promise<Image> | null = null;

/** The image, made once per process; its files go with the process. */
export function image(): Promise<Image> {
  return made ??= build();
}

async function build(): Promise<Image> {
  const kernel = await kernelFolder();
  const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-vm-` });
  globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  const initramfs = `${folder}/initramfs`;
  await Deno.writeFile(initramfs, await archive(kernel));
  const [vmlinuz] = namesIn(`${kernel}/boot`).filter((name) => name.startsWith("vmlinuz"));
  return { kernel: `${kernel}/boot/${vmlinuz}`, initramfs };
}

function cacheFolder(): string {
  return Deno.env.get("TUBETTI_VM_CACHE") ?? "/var/cache/tubetti-vm";
}

function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name);
}

/** Name of the package that holds the kernel. */
async function kernelPackage(): Promise<string> {
  const text = await must(["apt-cache", "depends", KERNEL_PACKAGE]);
  const found = /Depends: (linux-image-\S+)/.exec(text)?.[1];
  if (!found) throw new Error(`apt knows no package ${KERNEL_PACKAGE}`);
  return found;
}

/** Why there is no kernel for guests, and none can be had; empty when there is one. */
export async function lackOfKernel(): Promise<string> {
  try {
    await kernelFolder();
    return "";
  } catch (error) {
    return `needs the kernel of ${KERNEL_PACKAGE}: ${String(error).split("\n")[0]}`;
  }
}

/** The unpacked package of the kernel; any that was unpacked earlier will do. */
async function kernelFolder(): Promise<string> {
  await Deno.mkdir(cacheFolder(), { recursive: true });
  const there = namesIn(cacheFolder()).find((name) =>
    /^linux-image-[^.]*[.\d]+-.*-amd64$/.test(name)
  );
  if (there) return `${cacheFolder()}/${there}`;
  await kernelPackage().catch(() => updateLists());
  try {
    return await downloadKernel();
  } catch {
    await updateLists();
    return await downloadKernel();
  }
}

async function updateLists(): Promise<void> {
  await run(["apt-get", "-q", "update"], { timeoutMs: DOWNLOAD_TIMEOUT_MS });
}

async function downloadKernel(): Promise<string> {
  const name = await kernelPackage();
  console.log(`Unpacking the Debian package ${name} in ${cacheFolder()}`);
  const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-kernel-` });
  const partial = `${cacheFolder()}/partial-${Deno.pid}`;
  try {
    const options = { cwd: folder, timeoutMs: DOWNLOAD_TIMEOUT_MS };
    await must(["apt-get", "-q", "download", name], options);
    const [file] = namesIn(folder);
    await must(["dpkg-deb", "-x", `${folder}/${file}`, partial], options);
    await Deno.rename(partial, `${cacheFolder()}/${name}`);
    return `${cacheFolder()}/${name}`;
  } finally {
    await Deno.remove(partial, { recursive: true }).catch(() => {});
    await Deno.remove(folder, { recursive: true });
  }
}

/** The guest's file system. */
async function archive(kernel: string): Promise<Uint8Array> {
  const writer = new CpioWriter();
  for (const folder of ["bin", "sbin", "etc", "dev", "proc", "sys", "tmp", "run", "root", "var"]) {
    writer.folder(folder);
  }
  writer.device("dev/console", ...CONSOLE);
  await addBusybox(writer);
  await addModules(writer, kernel);
  for (const program of PROGRAMS) await addProgram(writer, program);
  await addProgram(writer, await peer());
  const text = (name: string) => Deno.readTextFile(new URL(name, import.meta.url));
  writer.file("init", await text("init.sh"), MODE_PROGRAM);
  writer.file("etc/udhcpc.sh", await text("udhcpc.sh"), MODE_PROGRAM);
  writer.file("etc/dhclient.sh", await text("dhclient.sh"), MODE_PROGRAM);
  writer.file("etc/passwd", "root:x:0:0:root:/tmp:/bin/sh\n");
  writer.file("etc/group", "root:x:0:\n");
  return writer.finish();
}

async function addBusybox(writer: CpioWriter): Promise<void> {
  await addProgram(writer, "/bin/busybox");
  const names = (await must(["busybox", "--list"])).trim().split("\n");
  for (const name of names) {
    if (!NOT_FROM_BUSYBOX.includes(name)) writer.link(`bin/${name}`, "busybox");
  }
}

async function addModules(writer: CpioWriter, kernel: string): Promise<void> {
  const [version] = namesIn(`${kernel}/lib/modules`);
  const names: string[] = [];
  for (const module of MODULES) {
    const name = module.slice(module.lastIndexOf("/") + 1);
    const path = `${kernel}/lib/modules/${version}/kernel/${module}.ko`;
    writer.file(`modules/${name}.ko`, await Deno.readFile(path));
    names.push(name);
  }
  writer.file("modules/list", names.join("\n") + "\n");
}

/** Adds a program to `bin`, and the libraries that ldd(1) names where they are. */
async function addProgram(writer: CpioWriter, program: string): Promise<void> {
  const content = await Deno.readFile(await Deno.realPath(program));
  writer.file(`bin/${program.slice(program.lastIndexOf("/") + 1)}`, content, MODE_PROGRAM);
  const { stdout } = await run(["ldd", program]); // fails for a program without libraries
  for (const [, library] of stdout.matchAll(/(?:^|\s)(\/\S+) \(0x/g)) {
    if (writer.has(library!.slice(1))) continue;
    writer.file(library!.slice(1), await Deno.readFile(library!), MODE_PROGRAM);
  }
}
