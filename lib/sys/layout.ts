// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Layouts of the kernel's and the C library's structures, in bytes.
 *
 * `tests/sys/layout_test.ts` compiles a C program that prints sizes and offsets, and compares.
 *
 * @module
 */

/** One structure. */
export interface Layout<Field extends string = string> {
  /** As in C, such as `struct ifreq`. */
  readonly name: string;
  /** Headers to include for it. */
  readonly headers: readonly string[];
  /** sizeof; 0 where it depends on the kernel's version. */
  readonly size: number;
  /** offsetof, by member (`a.b` for nested ones). */
  readonly at: Readonly<Record<Field, number>>;
  /** sizeof each member. */
  readonly sizes: Readonly<Record<Field, number>>;
}

/** Every layout made, for the test. */
export const LAYOUTS: Layout[] = [];

/**
 * Declares a layout.
 *
 * @param fields offset and size of each member
 */
function layout<Field extends string>(
  name: string,
  headers: readonly string[],
  size: number,
  fields: Readonly<Record<Field, readonly [offset: number, size: number]>>,
): Layout<Field> {
  const at = {} as Record<Field, number>, sizes = {} as Record<Field, number>;
  for (const field in fields) [at[field], sizes[field]] = fields[field];
  const made = { name, headers, size, at, sizes };
  LAYOUTS.push(made);
  return made;
}

/** Interface request (netdevice(7)). */
export const ifreq = layout("struct ifreq", ["net/if.h"], 40, {
  ifr_name: [0, 16],
  ifr_flags: [16, 2],
  ifr_ifindex: [16, 4],
  ifr_qlen: [16, 4],
  ifr_mtu: [16, 4],
});

/** One piece of a scattered buffer (readv(2)). */
export const iovec = layout("struct iovec", ["sys/uio.h"], 16, {
  iov_base: [0, 8],
  iov_len: [8, 8],
});

/** Message (sendmsg(2)). */
export const msghdr = layout("struct msghdr", ["sys/socket.h"], 56, {
  msg_name: [0, 8],
  msg_namelen: [8, 4],
  msg_iov: [16, 8],
  msg_iovlen: [24, 8],
  msg_control: [32, 8],
  msg_controllen: [40, 8],
  msg_flags: [48, 4],
});

/** One of several messages (sendmmsg(2)). */
export const mmsghdr = layout("struct mmsghdr", ["sys/socket.h"], 64, {
  msg_hdr: [0, 56],
  msg_len: [56, 4],
});

/** Header of ancillary data (cmsg(3)). */
export const cmsghdr = layout("struct cmsghdr", ["sys/socket.h"], 16, {
  cmsg_len: [0, 8],
  cmsg_level: [8, 4],
  cmsg_type: [12, 4],
});

/** IPv4 socket address (ip(7)). */
export const sockaddrIn = layout("struct sockaddr_in", ["netinet/in.h"], 16, {
  sin_family: [0, 2],
  sin_port: [2, 2],
  sin_addr: [4, 4],
});

/** IPv6 socket address (ipv6(7)). */
export const sockaddrIn6 = layout("struct sockaddr_in6", ["netinet/in.h"], 28, {
  sin6_family: [0, 2],
  sin6_port: [2, 2],
  sin6_flowinfo: [4, 4],
  sin6_addr: [8, 16],
  sin6_scope_id: [24, 4],
});

/** Socket address that is a path (unix(7)). */
export const sockaddrUn = layout("struct sockaddr_un", ["sys/un.h"], 110, {
  sun_family: [0, 2],
  sun_path: [2, 108],
});

/** Error queue entry (ip(7), IP_RECVERR). */
export const sockExtendedErr = layout(
  "struct sock_extended_err",
  ["time.h", "linux/errqueue.h"],
  16,
  {
    ee_errno: [0, 4],
    ee_origin: [4, 1],
    ee_type: [5, 1],
    ee_code: [6, 1],
    ee_info: [8, 4],
    ee_data: [12, 4],
  },
);

/** IP_PKTINFO (ip(7)). */
export const inPktinfo = layout("struct in_pktinfo", ["netinet/in.h"], 12, {
  ipi_ifindex: [0, 4],
  ipi_spec_dst: [4, 4],
  ipi_addr: [8, 4],
});

/** IPV6_PKTINFO (ipv6(7)). */
export const in6Pktinfo = layout("struct in6_pktinfo", ["netinet/in.h"], 20, {
  ipi6_addr: [0, 16],
  ipi6_ifindex: [16, 4],
});

/** SO_LINGER (socket(7)). */
export const linger = layout("struct linger", ["sys/socket.h"], 8, {
  l_onoff: [0, 4],
  l_linger: [4, 4],
});

/** What is known of a file (statx(2)). */
export const statx = layout("struct statx", ["sys/stat.h"], 256, {
  stx_mask: [0, 4],
  stx_blksize: [4, 4],
  stx_uid: [20, 4],
  stx_mode: [28, 2],
  stx_ino: [32, 8],
  stx_size: [40, 8],
  stx_dev_major: [136, 4],
  stx_dev_minor: [140, 4],
});

/** Descriptor to wait for (poll(2)). */
export const pollfd = layout("struct pollfd", ["poll.h"], 8, {
  fd: [0, 4],
  events: [4, 2],
  revents: [6, 2],
});

/** Resource limit (getrlimit(2)). */
export const rlimit = layout("struct rlimit", ["sys/resource.h"], 16, {
  rlim_cur: [0, 8],
  rlim_max: [8, 8],
});

/** Time in nanoseconds (clock_gettime(2)). */
export const timespec = layout("struct timespec", ["time.h"], 16, {
  tv_sec: [0, 8],
  tv_nsec: [8, 8],
});

/** Signal action of the C library (sigaction(2)). */
export const sigaction = layout("struct sigaction", ["signal.h"], 152, {
  sa_handler: [0, 8],
  sa_mask: [8, 128],
  sa_flags: [136, 4],
});

/** Header in front of a tap's frames (linux/virtio_net.h). */
export const virtioNetHdrV1 = layout("struct virtio_net_hdr_v1", ["linux/virtio_net.h"], 12, {
  flags: [0, 1],
  gso_type: [1, 1],
  hdr_len: [2, 2],
  gso_size: [4, 2],
  csum_start: [6, 2],
  csum_offset: [8, 2],
  num_buffers: [10, 2],
});

/** Descriptor of a split virtqueue (linux/virtio_ring.h). */
export const vringDesc = layout("struct vring_desc", ["linux/virtio_ring.h"], 16, {
  addr: [0, 8],
  len: [8, 4],
  flags: [12, 2],
  next: [14, 2],
});

/** What the driver writes of a split virtqueue; the ring follows (linux/virtio_ring.h). */
export const vringAvail = layout("struct vring_avail", ["linux/virtio_ring.h"], 4, {
  flags: [0, 2],
  idx: [2, 2],
});

/** What the device writes of a split virtqueue; the ring follows (linux/virtio_ring.h). */
export const vringUsed = layout("struct vring_used", ["linux/virtio_ring.h"], 4, {
  flags: [0, 2],
  idx: [2, 2],
});

/** Entry of the used ring (linux/virtio_ring.h). */
export const vringUsedElem = layout("struct vring_used_elem", ["linux/virtio_ring.h"], 8, {
  id: [0, 4],
  len: [4, 4],
});

/** Netlink message header (netlink(7)). */
export const nlmsghdr = layout("struct nlmsghdr", ["sys/socket.h", "linux/netlink.h"], 16, {
  nlmsg_len: [0, 4],
  nlmsg_type: [4, 2],
  nlmsg_flags: [6, 2],
  nlmsg_seq: [8, 4],
  nlmsg_pid: [12, 4],
});

/** Netlink acknowledgement (netlink(7)). */
export const nlmsgerr = layout("struct nlmsgerr", ["sys/socket.h", "linux/netlink.h"], 20, {
  error: [0, 4],
  msg: [4, 16],
});

/** Link message (rtnetlink(7)). */
export const ifinfomsg = layout("struct ifinfomsg", ["sys/socket.h", "linux/rtnetlink.h"], 16, {
  ifi_family: [0, 1],
  ifi_type: [2, 2],
  ifi_index: [4, 4],
  ifi_flags: [8, 4],
  ifi_change: [12, 4],
});

/** Address message (rtnetlink(7)). */
export const ifaddrmsg = layout("struct ifaddrmsg", ["sys/socket.h", "linux/rtnetlink.h"], 8, {
  ifa_family: [0, 1],
  ifa_prefixlen: [1, 1],
  ifa_flags: [2, 1],
  ifa_scope: [3, 1],
  ifa_index: [4, 4],
});

/** Route message (rtnetlink(7)). */
export const rtmsg = layout("struct rtmsg", ["sys/socket.h", "linux/rtnetlink.h"], 12, {
  rtm_family: [0, 1],
  rtm_dst_len: [1, 1],
  rtm_src_len: [2, 1],
  rtm_tos: [3, 1],
  rtm_table: [4, 1],
  rtm_protocol: [5, 1],
  rtm_scope: [6, 1],
  rtm_type: [7, 1],
  rtm_flags: [8, 4],
});

/** Routing attribute (rtnetlink(7)). */
export const rtattr = layout("struct rtattr", ["sys/socket.h", "linux/rtnetlink.h"], 4, {
  rta_len: [0, 2],
  rta_type: [2, 2],
});

/** One hop of a multipath route (rtnetlink(7)). */
export const rtnexthop = layout("struct rtnexthop", ["sys/socket.h", "linux/rtnetlink.h"], 8, {
  rtnh_len: [0, 2],
  rtnh_flags: [2, 1],
  rtnh_hops: [3, 1],
  rtnh_ifindex: [4, 4],
});

/** Gateway of another family, in front of its address (RTA_VIA, rtnetlink(7)). */
export const rtvia = layout("struct rtvia", ["sys/socket.h", "linux/rtnetlink.h"], 2, {
  rtvia_family: [0, 2],
});

const onX86 = Deno.build.arch === "x86_64";

/** Event (epoll_ctl(2)): packed on x86_64 only. */
export const epollEvent = layout("struct epoll_event", ["sys/epoll.h"], onX86 ? 12 : 16, {
  events: [0, 4],
  data: [onX86 ? 4 : 8, 8],
});

/** Question about sockets (sock_diag(7)). */
export const inetDiagReq = layout("struct inet_diag_req_v2", ["linux/inet_diag.h"], 56, {
  sdiag_family: [0, 1],
  sdiag_protocol: [1, 1],
  idiag_states: [4, 4],
});

/** One socket (sock_diag(7)). */
export const inetDiagMsg = layout("struct inet_diag_msg", ["linux/inet_diag.h"], 72, {
  idiag_family: [0, 1],
  idiag_state: [1, 1],
  "id.idiag_sport": [4, 2],
});

/** User of the password database (getpwnam(3)). */
export const passwd = layout("struct passwd", ["pwd.h"], 48, {
  pw_uid: [16, 4],
  pw_gid: [20, 4],
});

/** Group of the group database (getgrnam(3)). */
export const group = layout("struct group", ["grp.h"], 32, {
  gr_gid: [16, 4],
});
