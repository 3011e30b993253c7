// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * storm: many TCP connections that end in every way, with every byte compared.
 *
 *   storm serve PORT                       serves until it is ended
 *   storm run   ADDR PORT COUNT SEED WIDTH COUNT connections, at most WIDTH at a time; prints
 *                                          "good G reset R bad B server good G bad B"
 *   storm echo  ADDR PORT COUNT            against an echo server: opens COUNT connections, then
 *                                          sends 8 bytes on each, says "echoed E failed F" and keeps
 *                                          those that did until its standard input ends
 *
 * A client sends its connection's seed first. Both ends derive from it how many bytes each sends
 * (0 to 300 KB), which bytes, and how the connection ends (enum ending). Where it ends well, each
 * end must get exactly all bytes and then the end; where one end resets, the other must get a
 * beginning of them, and then an error. The seed 0 asks for the server's counts.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 256
#define BACKLOG 4096
#define MAX_FD 65536
#define MAX_BYTES 300000
#define PATTERN (1 << 20)
#define MAX_PORTION 40000
#define HEADER 4
#define MAX_COMPLAINTS 10
#define TIMEOUT_MS 15000

/* Which end shuts down or resets, and whether it waits for the other. */
enum ending { BOTH, SERVER_WAITS, CLIENT_WAITS, CLIENT_RESETS, SERVER_RESETS, ENDINGS };

struct connection {
	uint32_t seed, rng;
	enum ending ending;
	int open, server, header, write_done, read_done;
	uint32_t out_start, out_total, out, in_start, in_total, in;
	uint32_t reset_at; /* this end resets after so many bytes; UINT32_MAX: never */
};

static struct connection connections[MAX_FD];
static uint8_t pattern[2 * PATTERN];
static uint8_t buffer[MAX_PORTION];
static int good, resets, bad, open_now, ep;

static uint32_t next(uint32_t *state)
{
	uint32_t x = *state;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return *state = x;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void prepare(void)
{
	struct rlimit r;
	uint32_t state = 2463534242u;

	for (int i = 0; i < PATTERN; i++)
		pattern[i] = pattern[i + PATTERN] = next(&state) >> 11;
	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
	signal(SIGPIPE, SIG_IGN);
	ep = epoll_create1(0);
}

static uint32_t some_bytes(uint32_t *state)
{
	switch (next(state) % 4) {
	case 0: return 0;
	case 1: return next(state) % 100;
	case 2: return next(state) % 20000;
	default: return next(state) % MAX_BYTES;
	}
}

/* All that both ends agree on. */
static void derive(struct connection *c)
{
	uint32_t state = c->seed, from_client, from_server, client_start, server_start, cut;

	for (int i = 0; i < 8; i++)
		next(&state);
	c->ending = next(&state) % ENDINGS;
	from_client = some_bytes(&state);
	from_server = some_bytes(&state);
	client_start = next(&state) % PATTERN;
	server_start = next(&state) % PATTERN;
	cut = next(&state);
	c->rng = next(&state) + c->server;
	c->out_total = c->server ? from_server : from_client;
	c->in_total = c->server ? from_client : from_server;
	c->out_start = c->server ? server_start : client_start;
	c->in_start = c->server ? client_start : server_start;
	c->reset_at = UINT32_MAX;
	if (c->ending == (c->server ? SERVER_RESETS : CLIENT_RESETS))
		c->reset_at = c->out_total ? cut % c->out_total : 0;
}

static void interest(int fd, int op)
{
	struct connection *c = &connections[fd];
	int held = !c->header || (c->ending == SERVER_WAITS && c->server && !c->read_done) ||
		   (c->ending == CLIENT_WAITS && !c->server && !c->read_done && c->header == HEADER);
	struct epoll_event e = { .data.fd = fd };

	if (!c->read_done)
		e.events |= EPOLLIN;
	if (!c->write_done && !held)
		e.events |= EPOLLOUT;
	if (epoll_ctl(ep, op, fd, &e))
		die("epoll_ctl");
}

static void finish(int fd, int *count, int hard)
{
	struct linger l = { .l_onoff = 1, .l_linger = 0 };

	if (hard)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(fd);
	connections[fd].open = 0;
	open_now--;
	if (count)
		(*count)++;
}

static void complain(const struct connection *c, const char *what)
{
	static int lines;

	if (++lines <= MAX_COMPLAINTS)
		fprintf(stderr, "%s seed %u ending %d: %s (errno %s, sent %u of %u, got %u of %u)\n",
			c->server ? "server" : "client", c->seed, c->ending, what,
			strerrorname_np(errno), c->out, c->out_total, c->in, c->in_total);
}

/* An error is right only where the other end resets. */
static void failed(int fd)
{
	struct connection *c = &connections[fd];
	int other = c->ending == (c->server ? CLIENT_RESETS : SERVER_RESETS);

	/* ENOTCONN is what shutdown(2) says after a reset */
	if (!c->header || (other && (errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN)))
		return finish(fd, &resets, 0);
	complain(c, "unexpected error");
	finish(fd, &bad, 0);
}

static void send_counts(int fd)
{
	char text[100];
	int n = snprintf(text, sizeof(text), "server good %d bad %d\n", good, bad);

	if (send(fd, text, n, MSG_NOSIGNAL) != n)
		perror("counts");
	finish(fd, NULL, 0);
}

/* The server's first bytes. 1: complete, 0: not yet, -1: the connection is gone. */
static int take_header(int fd)
{
	struct connection *c = &connections[fd];
	uint32_t seed;
	ssize_t n = recv(fd, &seed, HEADER, MSG_PEEK);

	if (n == HEADER) {
		recv(fd, &seed, HEADER, 0);
		if (!seed)
			return send_counts(fd), -1;
		c->seed = seed;
		c->header = HEADER;
		derive(c);
		return 1;
	}
	if (n < 0 && errno != EAGAIN)
		return failed(fd), -1;
	if (n == 0)
		return finish(fd, &resets, 0), -1; /* looked at, and left again */
	return 0;
}

/* -1: the connection is gone. */
static int receive(int fd)
{
	struct connection *c = &connections[fd];
	ssize_t n;

	if (!c->header && take_header(fd) <= 0)
		return connections[fd].open ? 0 : -1;
	n = recv(fd, buffer, 1 + next(&c->rng) % MAX_PORTION, 0);
	if (n < 0)
		return errno == EAGAIN ? 0 : (failed(fd), -1);
	if (n == 0) {
		int other = c->ending == (c->server ? CLIENT_RESETS : SERVER_RESETS);
		c->read_done = 1;
		errno = 0;
		if (c->in == c->in_total && !other)
			return 0;
		complain(c, other ? "end in place of a reset" : "early end");
		return finish(fd, &bad, 0), -1;
	}
	if (c->in + n > c->in_total || memcmp(buffer, pattern + c->in_start + c->in, n)) {
		errno = 0;
		complain(c, "wrong bytes");
		return finish(fd, &bad, 0), -1;
	}
	c->in += n;
	return 0;
}

static int transmit(int fd)
{
	struct connection *c = &connections[fd];
	uint32_t most = c->out_total < c->reset_at ? c->out_total : c->reset_at;
	uint32_t portion = 1 + next(&c->rng) % MAX_PORTION;
	ssize_t n;

	if (c->header < HEADER) {
		/* nothing else is sent before it, so there is room for it */
		if (send(fd, &c->seed, HEADER, MSG_NOSIGNAL) != HEADER)
			return failed(fd), -1;
		c->header = HEADER;
		return 0;
	}
	if (portion > most - c->out)
		portion = most - c->out;
	n = portion ? send(fd, pattern + c->out_start + c->out, portion, MSG_NOSIGNAL) : 0;
	if (n < 0)
		return errno == EAGAIN ? 0 : (failed(fd), -1);
	c->out += n;
	if (c->out == c->reset_at)
		return finish(fd, &resets, 1), -1;
	if (c->out == c->out_total) {
		c->write_done = 1;
		if (shutdown(fd, SHUT_WR))
			return failed(fd), -1;
	}
	return 0;
}

static void move(int fd, uint32_t events)
{
	struct connection *c = &connections[fd];

	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !c->read_done && receive(fd))
		return;
	if ((events & EPOLLOUT) && !c->write_done && c->header && transmit(fd))
		return;
	if (c->read_done && c->write_done)
		return finish(fd, &good, 0);
	if (c->read_done && (events & EPOLLERR) && !(events & EPOLLOUT)) {
		socklen_t l = sizeof(errno);
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &errno, &l);
		return failed(fd);
	}
	interest(fd, EPOLL_CTL_MOD);
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
	inet_pton(AF_INET6, text, &a6->sin6_addr);
	a6->sin6_family = AF_INET6;
	a6->sin6_port = htons(port);
	return sizeof(*a6);
}

static void serve(int port)
{
	struct sockaddr_storage sa;
	socklen_t length = address("::", port, &sa);
	int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1, fd;
	struct epoll_event e = { .events = EPOLLIN, .data.fd = listener }, events[EVENTS];

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (void *)&sa, length) || listen(listener, BACKLOG))
		die("listen");
	epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd != listener) {
				move(events[i].data.fd, events[i].events);
				continue;
			}
			while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
				connections[fd] = (struct connection){ .open = 1, .server = 1 };
				open_now++;
				interest(fd, EPOLL_CTL_ADD);
			}
		}
	}
}

static int dial(const struct sockaddr_storage *sa, socklen_t length, int flags)
{
	int fd = socket(sa->ss_family, SOCK_STREAM | flags, 0);

	if (fd < 0 || (connect(fd, (const void *)sa, length) && errno != EINPROGRESS))
		die("connect");
	return fd;
}

static void begin(const struct sockaddr_storage *sa, socklen_t length, uint32_t seed)
{
	int fd = dial(sa, length, SOCK_NONBLOCK);
	struct connection *c = &connections[fd];

	*c = (struct connection){ .seed = seed ? seed : 1, .open = 1, .header = 1 };
	derive(c);
	open_now++;
	interest(fd, EPOLL_CTL_ADD);
}

static void run(const struct sockaddr_storage *sa, socklen_t length, int count, uint32_t seed,
		int width)
{
	struct epoll_event events[EVENTS];
	char text[100];
	uint32_t zero = 0, state = seed;
	ssize_t got, total = 0;
	int fd, n;

	for (int started = 0; started < count || open_now;) {
		for (; open_now < width && started < count; started++)
			begin(sa, length, next(&state));
		n = epoll_wait(ep, events, EVENTS, TIMEOUT_MS);
		if (n == 0)
			break; /* whatever is open hangs */
		for (int i = 0; i < n; i++)
			move(events[i].data.fd, events[i].events);
	}
	for (fd = 0; fd < MAX_FD; fd++)
		if (connections[fd].open)
			complain(&connections[fd], "hangs");
	printf("good %d reset %d bad %d ", good, resets, bad + open_now);
	usleep(300000); /* what is still on its way to the server */
	fd = dial(sa, length, 0);
	send(fd, &zero, sizeof(zero), MSG_NOSIGNAL);
	while ((got = recv(fd, text + total, sizeof(text) - 1 - total, 0)) > 0)
		total += got;
	text[total] = 0;
	fputs(text, stdout);
}

static void echo(const struct sockaddr_storage *sa, socklen_t length, int count)
{
	static int fds[MAX_FD];
	struct timeval limit = { .tv_sec = 2 };
	int echoed = 0;

	for (int i = 0; i < count; i++) {
		fds[i] = dial(sa, length, 0);
		setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	}
	for (uint64_t i = 0, reply; i < count; i++)
		send(fds[i], &i, sizeof(reply), MSG_NOSIGNAL);
	for (uint64_t i = 0, reply = 0; i < count; i++) {
		if (recv(fds[i], &reply, sizeof(reply), MSG_WAITALL) == sizeof(reply) && reply == i) {
			echoed++;
			continue;
		}
		close(fds[i]);
		limit.tv_usec = 100000; /* the first one that failed has waited for all */
		limit.tv_sec = 0;
		for (int j = i + 1; j < count && errno == EAGAIN; j++)
			setsockopt(fds[j], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	}
	printf("echoed %d failed %d\n", echoed, count - echoed);
	fflush(stdout);
	while (read(0, buffer, sizeof(buffer)) > 0)
		;
}

int main(int argc, char **argv)
{
	struct sockaddr_storage sa;
	socklen_t length;

	prepare();
	if (argc == 3 && !strcmp(argv[1], "serve")) {
		serve(atoi(argv[2]));
	} else if (argc >= 5) {
		length = address(argv[2], atoi(argv[3]), &sa);
		if (argc == 7 && !strcmp(argv[1], "run"))
			run(&sa, length, atoi(argv[4]), strtoul(argv[5], NULL, 10), atoi(argv[6]));
		else
			echo(&sa, length, atoi(argv[4]));
	} else {
		fprintf(stderr, "usage: see the head of storm.c\n");
		return 2;
	}
	return 0;
}
