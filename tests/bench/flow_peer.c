// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The flow table's algorithm in C, to measure ours against: states, free clusters, deferred scan, index
 * by SipHash-2-4, what other processes may read while it goes on. Prints one figure per line, in nanoseconds, in the order of flow_bench.ts.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CAPACITY 131071u
#define SMALL 1000u
#define SIDES (2 * CAPACITY)
#define SLOTS 374489u /* SIDES / 0.7, rounded up */
#define BATCH 4096u
#define STRIDE 79999u /* no common divisor with SIDES */
#define PROTO 6

enum state { FREE, NEW, INI, TGT, TYPED, ACTIVE };

struct side {
	uint32_t eaddr[4], oaddr[4], ports, pif;
};

struct flow {
	uint8_t state, type, hashed, phase;
	uint16_t label;
	uint32_t n, next;
	double counters[3];
	struct side side[2];
	uint32_t data[48];
};

struct slot {
	uint32_t entry, hash;
};

static struct flow *flows;
static uint32_t *generations; /* odd while a flow is ACTIVE */
static unsigned capacity, first_free, used;
static double (*clock_ms)(void);
static int nascent = -1;
static uint64_t timer_run;
static struct slot *slots;
static uint64_t key[2] = { 0x0706050403020100, 0x0f0e0d0c0b0a0908 };
static const uint8_t protos[] = { 0, 6, 6, 1, 58, 17 };

static void die(const char *why)
{
	fprintf(stderr, "%s\n", why);
	exit(1);
}

static void reset(unsigned n)
{
	memset(flows, 0, sizeof(*flows) * CAPACITY);
	capacity = n;
	first_free = 0;
	nascent = -1;
	flows[0].n = flows[0].next = n;
}

static __attribute__((noinline)) int flow_alloc(void)
{
	unsigned i = first_free, n, next;

	if (nascent != -1)
		die("alloc: nascent");
	if (i >= capacity)
		return -1;
	n = flows[i].n;
	next = flows[i].next;
	if (n < 1 || i + n > capacity || flows[i].state != FREE)
		die("alloc: no head");
	if (n > 1) {
		flows[i + 1].n = n - 1;
		flows[i + 1].next = next;
		first_free = i + 1;
	} else {
		first_free = next;
	}
	memset(&flows[i], 0, sizeof(flows[i]));
	nascent = i;
	flows[i].state = NEW;
	return i;
}

static __attribute__((noinline)) void flow_set_type(int i, unsigned type)
{
	if (i != nascent || flows[i].state != NEW || !type || type >= sizeof(protos))
		die("type");
	flows[i].type = type;
	flows[i].state = TYPED;
}

static __attribute__((noinline)) void flow_activate(int i)
{
	if (i != nascent || flows[i].state != TYPED)
		die("activate");
	flows[i].state = ACTIVE;
	flows[i].counters[2] = clock_ms();
	nascent = -1;
	__atomic_store_n(&generations[i], (generations[i] + 1) | 1, __ATOMIC_SEQ_CST);
	if ((unsigned)i >= used)
		__atomic_store_n(&used, i + 1, __ATOMIC_SEQ_CST);
}

static __attribute__((noinline)) bool tcp_deferred(struct flow *flow)
{
	return flow->data[0] != 0;
}

static __attribute__((noinline)) void flow_scan(uint64_t now)
{
	uint32_t *last_next = &first_free;
	struct flow *head = NULL;
	bool timers = false;

	if (now - timer_run >= 1000) {
		timers = true;
		timer_run = now;
	}
	if (nascent != -1)
		die("scan: nascent");
	for (unsigned i = 0; i < capacity; i++) {
		struct flow *flow = &flows[i];
		bool closed = false;

		if (flow->state == FREE) {
			unsigned skip = flow->n;

			if (!skip)
				die("scan: no head");
			if (head) {
				head->n += skip;
				flow->n = flow->next = 0;
			} else {
				head = flow;
				*last_next = i;
				last_next = &flow->next;
			}
			i += skip - 1;
			continue;
		}
		if (flow->state != ACTIVE)
			die("scan: incomplete");
		switch (flow->type) {
		case 1:
			closed = tcp_deferred(flow);
			break;
		case 2:
			closed = timers && tcp_deferred(flow);
			break;
		}
		if (!closed) {
			head = NULL;
			continue;
		}
		__atomic_store_n(&generations[i], (generations[i] | 1) + 1, __ATOMIC_SEQ_CST);
		memset(flow, 0, sizeof(*flow));
		if (head) {
			head->n++;
		} else {
			head = flow;
			flow->n = 1;
			*last_next = i;
			last_next = &flow->next;
		}
	}
	*last_next = capacity;
}

#define ROTL(x, b) ((x) << (b) | (x) >> (64 - (b)))
#define ROUND do { \
	v0 += v1; v1 = ROTL(v1, 13) ^ v0; v0 = ROTL(v0, 32); \
	v2 += v3; v3 = ROTL(v3, 16) ^ v2; \
	v0 += v3; v3 = ROTL(v3, 21) ^ v0; \
	v2 += v1; v1 = ROTL(v1, 17) ^ v2; v2 = ROTL(v2, 32); \
} while (0)

/* SipHash-2-4 of 38 bytes: both addresses, both ports, interface, protocol */
static uint32_t side_hash(const struct side *side, unsigned proto)
{
	uint64_t v0 = key[0] ^ 0x736f6d6570736575, v1 = key[1] ^ 0x646f72616e646f6d;
	uint64_t v2 = key[0] ^ 0x6c7967656e657261, v3 = key[1] ^ 0x7465646279746573;
	uint64_t block[5];

	memcpy(block, side, 32);
	block[4] = side->ports | (uint64_t)side->pif << 32 | (uint64_t)proto << 40 | 38ULL << 56;
	for (int k = 0; k < 5; k++) {
		v3 ^= block[k];
		ROUND;
		ROUND;
		v0 ^= block[k];
	}
	v2 ^= 0xff;
	for (int k = 0; k < 4; k++)
		ROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

static struct side *side_at(unsigned sidx)
{
	return &flows[sidx >> 1].side[sidx & 1];
}

static unsigned home_of(uint32_t hash)
{
	return (uint64_t)hash * SLOTS >> 32;
}

static unsigned after(unsigned slot)
{
	return slot + 1 == SLOTS ? 0 : slot + 1;
}

static __attribute__((noinline)) void hash_insert(unsigned sidx)
{
	struct flow *flow = &flows[sidx >> 1];
	uint32_t hash = side_hash(side_at(sidx), protos[flow->type]);
	unsigned slot = home_of(hash);

	if (flow->hashed >> (sidx & 1) & 1)
		die("insert: there already");
	flow->hashed |= 1 << (sidx & 1);
	while (slots[slot].entry)
		slot = after(slot);
	slots[slot].entry = sidx + 1;
	slots[slot].hash = hash;
}

static __attribute__((noinline)) int hash_lookup(unsigned proto, const struct side *wanted)
{
	uint32_t hash = side_hash(wanted, proto);

	for (unsigned slot = home_of(hash);; slot = after(slot)) {
		unsigned entry = slots[slot].entry;

		if (!entry)
			return -1;
		if (slots[slot].hash == hash && !memcmp(side_at(entry - 1), wanted, sizeof(*wanted)) &&
		    protos[flows[(entry - 1) >> 1].type] == proto)
			return entry - 1;
	}
}

static __attribute__((noinline)) void hash_remove(unsigned sidx)
{
	struct flow *flow = &flows[sidx >> 1];
	uint32_t hash = side_hash(side_at(sidx), protos[flow->type]);
	unsigned gap = home_of(hash), slot;

	if (!(flow->hashed >> (sidx & 1) & 1))
		die("remove: not there");
	flow->hashed &= ~(1 << (sidx & 1));
	while (slots[gap].entry != sidx + 1) {
		if (!slots[gap].entry)
			die("remove: changed");
		gap = after(gap);
	}
	for (slot = after(gap); slots[slot].entry; slot = after(slot)) {
		unsigned home = home_of(slots[slot].hash);
		unsigned from_home = slot >= home ? slot - home : slot - home + SLOTS;
		unsigned from_gap = slot >= gap ? slot - gap : slot - gap + SLOTS;

		if (from_home < from_gap)
			continue;
		slots[gap] = slots[slot];
		gap = slot;
	}
	slots[gap].entry = 0;
}

static double no_clock(void)
{
	return 0;
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void set_key(struct side *side, unsigned sidx)
{
	side->eaddr[3] = sidx * 2654435761u;
	side->ports = sidx;
	side->pif = 1 + (sidx & 1);
}

static void fill(void)
{
	for (unsigned i = 0; i < capacity; i++) {
		flow_alloc();
		flow_set_type(i, 1);
		flow_activate(i);
	}
}

static void empty(void)
{
	for (unsigned i = 0; i < capacity; i++)
		flows[i].data[0] = 1;
	flow_scan(0);
}

static void bench_alloc(unsigned n, int rounds)
{
	double spent = 0, start;

	reset(n);
	fill();
	empty();
	for (int k = 0; k < rounds; k++) {
		start = now_ns();
		fill();
		spent += now_ns() - start;
		empty();
	}
	printf("%.2f\n", spent / rounds / n);
}

static void bench_scan(unsigned percent, int rounds)
{
	uint32_t random = 12345;
	double start;

	reset(CAPACITY);
	fill();
	for (unsigned i = 0; i < capacity; i++) {
		random = random * 1664525 + 1013904223;
		flows[i].data[0] = (random >> 16) % 100 >= percent;
	}
	flow_scan(0);
	start = now_ns();
	for (int k = 0; k < rounds; k++)
		flow_scan(0);
	printf("%.2f\n", (now_ns() - start) / rounds);
}

static void bench_hash(int rounds)
{
	double inserting = 0, removing = 0, finding, start;
	struct side wanted = { .eaddr = { 0, 0, 0xffff }, .oaddr = { 0, 0, 0xffff, 0x0a000001 } };
	unsigned at = 0;

	reset(CAPACITY);
	fill();
	for (unsigned sidx = 0; sidx < SIDES; sidx++) {
		set_key(&wanted, sidx);
		*side_at(sidx) = wanted;
		hash_insert(sidx);
	}
	start = now_ns();
	for (unsigned k = 0; k < SIDES; k++) {
		at = (at + STRIDE) % SIDES;
		set_key(&wanted, at);
		if (hash_lookup(PROTO, &wanted) != (int)at)
			die("lookup");
	}
	finding = now_ns() - start;
	for (int k = 0; k < rounds; k++) {
		unsigned from = at;

		start = now_ns();
		for (unsigned j = 0; j < BATCH; j++) {
			at = (at + STRIDE) % SIDES;
			hash_remove(at);
		}
		removing += now_ns() - start;
		at = from;
		start = now_ns();
		for (unsigned j = 0; j < BATCH; j++) {
			at = (at + STRIDE) % SIDES;
			hash_insert(at);
		}
		inserting += now_ns() - start;
	}
	printf("%.2f\n%.2f\n%.2f\n", inserting / rounds / BATCH, finding / SIDES, removing / rounds / BATCH);
}

int main(void)
{
	clock_ms = no_clock;
	flows = calloc(CAPACITY, sizeof(*flows));
	generations = calloc(CAPACITY, sizeof(*generations));
	slots = calloc(SLOTS, sizeof(*slots));
	if (!flows || !generations || !slots)
		die("out of memory");
	bench_alloc(SMALL, 300);
	bench_alloc(CAPACITY, 3);
	bench_scan(1, 1000);
	bench_scan(50, 20);
	bench_scan(100, 20);
	bench_hash(32);
	return 0;
}
