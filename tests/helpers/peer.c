// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * peer: a server and clients for tests and benchmarks.
 *
 *   peer serve PORT                     TCP and UDP echo, any number of connections, both families
 *   peer rr    ADDR PORT SECONDS        one byte there and back on one connection, again and again
 *   peer crr   ADDR PORT SECONDS        connect, one byte there and back, close, again and again
 *   peer udprr ADDR PORT SECONDS        one datagram there and back, again and again
 *   peer hold  ADDR PORT N              opens N connections, says "open N failed M", then runs
 *                                       10000 round trips on the last one, says "active ...", and
 *                                       keeps all open until its standard input ends
 *   peer short ADDR PORT N BYTES WIDTH  N connections, at most WIDTH at a time, each sends BYTES
 *                                       bytes, shuts down, reads them all back; says "ok N failed M"
 *   peer echo ADDR PORT PROTOCOL SIZE... sends SIZE bytes to an echo server by tcp or udp and
 *                                       compares what comes back; says "SIZE same" or why not
 *   peer spin                           keeps a processor busy at the lowest priority (SCHED_IDLE)
 *
 * rr, crr and udprr print "count mean_us median_us p99_us".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 1024
#define BACKLOG 65535
#define BUFFER 65536
#define MAX_FD 1048576
#define SAMPLES (1 << 22)
#define ACTIVE_ROUNDS 10000
#define RECEIVE_TIMEOUT_S 10
#define DATAGRAM_BUFFER (4 << 20) /* what comes while others have the processors */

static char buffer[BUFFER];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void raise_limit(void)
{
	struct rlimit r;
	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

static socklen_t address(const char *text, int port, struct sockaddr_storage *sa)
{
	struct sockaddr_in *a4 = (void *)sa;
	struct sockaddr_in6 *a6 = (void *)sa;

	memset(sa, 0, sizeof(*sa));
	if (inet_pton(AF_INET, text, &a4->sin_addr) == 1) {
		a4->sin_family = AF_INET;
		a4->sin_port = htons(port);
		return sizeof(*a4);
	}
	if (inet_pton(AF_INET6, text, &a6->sin6_addr) != 1) {
		fprintf(stderr, "bad address %s\n", text);
		exit(1);
	}
	a6->sin6_family = AF_INET6;
	a6->sin6_port = htons(port);
	return sizeof(*a6);
}

/* Listening or bound sockets take both families where the kernel has IPv6. */
static int open_server(int type, int port)
{
	struct sockaddr_storage sa;
	int one = 1, zero = 0, room = DATAGRAM_BUFFER;
	int fd = socket(AF_INET6, type | SOCK_NONBLOCK, 0);
	socklen_t length = address(fd < 0 ? "0.0.0.0" : "::", port, &sa);

	if (fd < 0)
		fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* more than the usual limit takes root, without whom tests run with what there is */
	if (type == SOCK_DGRAM)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (bind(fd, (void *)&sa, length))
		die("bind");
	if (type == SOCK_STREAM && listen(fd, BACKLOG))
		die("listen");
	return fd;
}

static void watch(int ep, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.fd = fd };
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e))
		die("epoll_ctl");
}

static void accept_all(int ep, int listener)
{
	int one = 1, fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		watch(ep, fd, EPOLLIN);
	}
	if (errno == EMFILE)
		fprintf(stderr, "server: out of file descriptors\n");
}

/* Echoes what is there. Blocks while the client does not read: clients here read. */
static void echo_stream(int fd)
{
	ssize_t n, done = 0, m;

	n = recv(fd, buffer, sizeof(buffer), 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close(fd);
		return;
	}
	while (done < n) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		m = send(fd, buffer + done, n - done, MSG_NOSIGNAL);
		if (m >= 0)
			done += m;
		else if (errno != EAGAIN || poll(&p, 1, 5000) <= 0)
			break;
	}
}

/* Answers from the address that was asked: the machine has several. */
static void echo_datagrams(int fd)
{
	struct sockaddr_storage from;
	char control[256];
	struct iovec iov = { .iov_base = buffer };
	struct msghdr m = { .msg_name = &from, .msg_iov = &iov, .msg_iovlen = 1,
			    .msg_control = control };
	struct cmsghdr *c;
	ssize_t n;

	for (;;) {
		m.msg_namelen = sizeof(from);
		m.msg_controllen = sizeof(control);
		iov.iov_len = sizeof(buffer);
		if ((n = recvmsg(fd, &m, 0)) < 0)
			return;
		for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
			if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO)
				((struct in6_pktinfo *)CMSG_DATA(c))->ipi6_ifindex = 0;
		iov.iov_len = n;
		sendmsg(fd, &m, 0);
	}
}

static void serve(int port)
{
	static struct epoll_event events[EVENTS];
	int ep = epoll_create1(0);
	int tcp = open_server(SOCK_STREAM, port), udp = open_server(SOCK_DGRAM, port);

	watch(ep, tcp, EPOLLIN);
	watch(ep, udp, EPOLLIN);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == tcp)
				accept_all(ep, tcp);
			else if (fd == udp)
				echo_datagrams(udp);
			else
				echo_stream(fd);
		}
	}
}

static int dial(const struct sockaddr_storage *sa, socklen_t length, int type)
{
	struct timeval limit = { .tv_sec = RECEIVE_TIMEOUT_S };
	int one = 1, fd = socket(sa->ss_family, type, 0);

	if (fd < 0)
		return -1;
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (const void *)sa, length)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int round_trip(int fd)
{
	char byte = 'x';
	return send(fd, &byte, 1, MSG_NOSIGNAL) == 1 && recv(fd, &byte, 1, 0) == 1;
}

static float samples[SAMPLES];

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static void report(long count, double sum)
{
	if (count == 0) {
		puts("0 0 0 0");
		return;
	}
	qsort(samples, count, sizeof(samples[0]), by_value);
	printf("%ld %.2f %.2f %.2f\n", count, sum / count * 1e6, samples[count / 2] * 1e6,
	       samples[count * 99 / 100] * 1e6);
}

static void latency(const char *mode, const struct sockaddr_storage *sa, socklen_t length,
		    double seconds)
{
	int type = !strcmp(mode, "udprr") ? SOCK_DGRAM : SOCK_STREAM;
	int reconnect = !strcmp(mode, "crr"), fd = -1;
	double begin = now(), end = begin + seconds, sum = 0;
	struct linger hard = { .l_onoff = 1, .l_linger = 0 };
	long count = 0;

	while (count < SAMPLES && now() < end) {
		double t = now();
		if (fd < 0 && (fd = dial(sa, length, type)) < 0)
			die("connect");
		if (!round_trip(fd))
			die("round trip");
		if (reconnect) {
			/* no TIME_WAIT: local ports must not run out */
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
			close(fd);
			fd = -1;
		}
		t = now() - t;
		sum += t;
		samples[count++] = t;
	}
	report(count, sum);
}

static void hold(const struct sockaddr_storage *sa, socklen_t length, int wanted)
{
	int fd = -1, last = -1, opened = 0, failed = 0, good = 0, error = 0;
	double t = now();

	for (int i = 0; i < wanted; i++) {
		fd = dial(sa, length, SOCK_STREAM);
		if (fd < 0) {
			failed++;
			error = errno;
			if (failed > 100)
				break;
			continue;
		}
		opened++;
		last = fd;
	}
	printf("open %d failed %d %s%s in %.2f s\n", opened, failed, error ? "last error " : "",
	       error ? strerrorname_np(error) : "", now() - t);
	fflush(stdout);
	t = now();
	for (int i = 0; last >= 0 && i < ACTIVE_ROUNDS; i++)
		good += round_trip(last);
	printf("active %d of %d, %.1f us each\n", good, ACTIVE_ROUNDS, (now() - t) / ACTIVE_ROUNDS * 1e6);
	fflush(stdout);
	while (read(0, buffer, sizeof(buffer)) > 0)
		;
}

struct transfer {
	int sent, received;
};

static struct transfer transfers[MAX_FD];

/* Moves one connection on: 1 done, -1 failed, 0 more to come. */
static int advance(int fd, int bytes)
{
	struct transfer *t = &transfers[fd];
	ssize_t n;

	while (t->sent < bytes) {
		int chunk = bytes - t->sent < BUFFER ? bytes - t->sent : BUFFER;
		n = send(fd, buffer, chunk, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINPROGRESS || errno == ENOTCONN ? 0 : -1;
		t->sent += n;
		if (t->sent == bytes)
			shutdown(fd, SHUT_WR);
	}
	while ((n = recv(fd, buffer, BUFFER, 0)) > 0)
		t->received += n;
	if (n == 0)
		return t->received == bytes ? 1 : -1;
	return errno == EAGAIN ? 0 : -1;
}

static int begin(int ep, const struct sockaddr_storage *sa, socklen_t length)
{
	int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	if (connect(fd, (const void *)sa, length) && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	memset(&transfers[fd], 0, sizeof(transfers[fd]));
	watch(ep, fd, EPOLLIN | EPOLLOUT | EPOLLET);
	return 0;
}

static void short_connections(const struct sockaddr_storage *sa, socklen_t length, int wanted,
			      int bytes, int width)
{
	static struct epoll_event events[EVENTS];
	int ep = epoll_create1(0), started = 0, open = 0, ok = 0, failed = 0, error = 0;
	double t = now();

	while (ok + failed < wanted) {
		for (; open < width && started < wanted; started++) {
			if (begin(ep, sa, length)) {
				failed++;
				error = errno;
			} else {
				open++;
			}
		}
		int n = epoll_wait(ep, events, EVENTS, RECEIVE_TIMEOUT_S * 1000);
		if (n <= 0) {
			failed += open;
			error = ETIMEDOUT;
			break;
		}
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd, r = advance(fd, bytes);
			if (!r)
				continue;
			if (r < 0)
				error = errno;
			r > 0 ? ok++ : failed++;
			open--;
			close(fd);
		}
	}
	printf("ok %d failed %d %s in %.2f s\n", ok, failed, error ? strerrorname_np(error) : "",
	       now() - t);
}

/* Why SIZE bytes did not come back as they were sent, or "same". */
static const char *echoed(int fd, int type, size_t size)
{
	static unsigned char sent[BUFFER], got[BUFFER];
	size_t have = 0;

	if (size > sizeof(sent))
		return "too long";
	for (size_t i = 0; i < size; i++)
		sent[i] = random();
	if (send(fd, sent, size, 0) != (ssize_t)size)
		return strerrorname_np(errno);
	do {
		ssize_t n = recv(fd, got + have, sizeof(got) - have, 0);
		if (n <= 0)
			return n < 0 ? strerrorname_np(errno) : "closed";
		have += n;
	} while (type == SOCK_STREAM && have < size);
	return have == size && !memcmp(sent, got, size) ? "same" : "different";
}

static int echo_sizes(const struct sockaddr_storage *sa, socklen_t length, int type, char **sizes)
{
	struct timeval limit = { .tv_sec = RECEIVE_TIMEOUT_S };
	int failed = 0;

	for (; *sizes; sizes++) {
		int fd = socket(sa->ss_family, type, 0);
		const char *result;
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		if (connect(fd, (const void *)sa, length))
			result = strerrorname_np(errno);
		else
			result = echoed(fd, type, atoi(*sizes));
		printf("%s %s\n", *sizes, result);
		failed |= strcmp(result, "same") != 0;
		close(fd);
	}
	return failed;
}

int main(int argc, char **argv)
{
	struct sockaddr_storage sa;
	socklen_t length;

	signal(SIGPIPE, SIG_IGN);
	raise_limit();
	if (argc == 3 && !strcmp(argv[1], "serve")) {
		serve(atoi(argv[2]));
	} else if (argc == 2 && !strcmp(argv[1], "spin")) {
		struct sched_param none = { 0 };
		sched_setscheduler(0, SCHED_IDLE, &none);
		for (;;)
			;
	}
	if (argc < 5) {
		fprintf(stderr, "usage: see the head of peer.c\n");
		return 2;
	}
	length = address(argv[2], atoi(argv[3]), &sa);
	if (!strcmp(argv[1], "hold"))
		hold(&sa, length, atoi(argv[4]));
	else if (!strcmp(argv[1], "echo"))
		return echo_sizes(&sa, length, strcmp(argv[4], "udp") ? SOCK_STREAM : SOCK_DGRAM,
				  argv + 5);
	else if (!strcmp(argv[1], "short") && argc == 7)
		short_connections(&sa, length, atoi(argv[4]), atoi(argv[5]), atoi(argv[6]));
	else
		latency(argv[1], &sa, length, atof(argv[4]));
	return 0;
}
