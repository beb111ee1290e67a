// Members of one channel, and others who join them at a fixed rate: how long until every member has seen each join.
//
// 1. enter: --connections WebSockets say --hello, a few at a time, and are ready at --ready;
// 2. join: as many more as --rate times --seconds, connected beforehand, say --publish one by one, each with a number of
//    its own in the place of "@@00000000"; with --peer-port every other one is on that second server, as members are;
// 3. drain, then one line of JSON.
//
// A join is seen by a member when a frame with "@@" and its number has come. Whether the counts are good is for the caller.
#define _GNU_SOURCE
#include "load-connection.h"

#define DIGITS 8
#define ENTERING_MAX 256
#define JOIN "\"type\":\"join\""

static Connection *members, *joiners;
static uint32_t joined, joinerCount;
static uint64_t seen, repeated, errors;
static Nanos *joinedAt, lastSeenAt;
static uint32_t *seenBy;
static Histogram latency;

static void onJoin(Connection *c, const char *text, size_t n, Nanos now) {
  const char *mark = memmem(text, n, "@@", 2);
  // Members who entered before have no mark.
  if (!mark || (size_t)(text + n - mark) < 2 + DIGITS) return;
  uint32_t number = 0;
  for (int i = 0; i < DIGITS; i++) number = number << 4 | (uint32_t)((mark[2 + i] & 15) + (mark[2 + i] >> 6) * 9);
  if (number >= joined) return;
  if (number + 1 == c->next) repeated++;
  c->next = number + 1;
  seen++;
  seenBy[number]++;
  lastSeenAt = now;
  record(&latency, now - joinedAt[number]);
}

static void onMessage(Connection *c, const char *text, size_t n, Nanos now) {
  if (c->publisher) {
    if (memmem(text, n, "\"type\":\"error\"", 14) && errors++ == 0)
      fprintf(stderr, "load: a joiner got %.*s\n", (int)(n < 300 ? n : 300), text);
  } else if (!c->ready) {
    if (memmem(text, n, want.ready, strlen(want.ready))) c->ready = true, readyCount++;
  } else if (memmem(text, n < 40 ? n : 40, JOIN, sizeof JOIN - 1)) {
    onJoin(c, text, n, now);
  }
}

static void enterAll(Nanos deadline) {
  int begun = 0;
  while (readyCount + refusedCount + closedCount < want.connections) {
    if (clockNanos() > deadline) fail("the members were not ready in time");
    while (begun < want.connections && begun - readyCount - refusedCount - closedCount < ENTERING_MAX) {
      dial(&members[begun], begun, false, false);
      begun++;
    }
    turn(10);
  }
}

static void connectJoiners(void) {
  Nanos deadline = clockNanos() + 60 * SECOND;
  for (uint32_t i = 0; i < joinerCount; i++) {
    int here = want.publishPort;
    if (want.peerPort && i % 2) want.publishPort = want.peerPort;
    dial(&joiners[i], want.connections + (int)i, false, true);
    want.publishPort = here;
    while (joiners[i].state != OPEN) {
      if (clockNanos() > deadline) fail("the joiners were not accepted in time");
      turn(10);
    }
  }
}

static void joinOne(char *frame, char *mark) {
  static const char hex[] = "0123456789abcdef";
  for (int i = 0; i < DIGITS; i++) mark[2 + i] = hex[joined >> (28 - 4 * i) & 15];
  joinedAt[joined] = clockNanos();
  sendText(&joiners[joined++], frame);
}

int main(int argc, char **argv) {
  readOptions(argc, argv);
  joinerCount = (uint32_t)(want.rate * want.seconds);
  rlim_t needed = (rlim_t)want.connections + joinerCount + 64;
  struct rlimit files = {.rlim_cur = needed, .rlim_max = needed}, now;
  getrlimit(RLIMIT_NOFILE, &now);
  if (files.rlim_max < now.rlim_max) files.rlim_max = now.rlim_max;
  if (now.rlim_cur < files.rlim_cur && setrlimit(RLIMIT_NOFILE, &files)) fail("the open files limit is too low");
  poller = epoll_create1(EPOLL_CLOEXEC);
  members = calloc((size_t)want.connections, sizeof *members);
  joiners = calloc(joinerCount + 1, sizeof *joiners);
  joinedAt = calloc(joinerCount + 1, sizeof *joinedAt);
  seenBy = calloc(joinerCount + 1, sizeof *seenBy);
  if (poller < 0 || !members || !joiners || !joinedAt || !seenBy) fail("start");
  errno = 0;

  Nanos began = clockNanos();
  enterAll(began + 180 * SECOND);
  double enterSeconds = (double)(clockNanos() - began) / SECOND;
  connectJoiners();
  idle(want.settleSeconds);
  // Whoever drives this client begins what shall run beside the joins.
  printf("{\"entered\":%d}\n", readyCount);
  fflush(stdout);
  char *frame = strdup(want.publish), *mark = strstr(frame, "@@00000000");
  if (!mark) fail("--publish must hold @@00000000");
  double clientCpu = ownCpuSeconds(), serverCpu = processCpuSeconds(want.pid) + processCpuSeconds(want.peerPid);
  began = clockNanos();
  for (uint32_t due; joined < joinerCount; turn(1)) {
    due = (uint32_t)((double)(clockNanos() - began) / SECOND * want.rate);
    while (joined < due && joined < joinerCount) joinOne(frame, mark);
  }
  uint64_t expected = (uint64_t)joinerCount * (uint64_t)readyCount;
  for (Nanos end = clockNanos() + (Nanos)(want.deadlineSeconds * SECOND); seen < expected && clockNanos() < end;) turn(10);
  double seconds = (double)(lastSeenAt - began) / SECOND;
  clientCpu = ownCpuSeconds() - clientCpu;
  serverCpu = processCpuSeconds(want.pid) + processCpuSeconds(want.peerPid) - serverCpu;
  idle(0.2);
  printf("{\"members\":%d,\"closed\":%d,\"refused\":%d,\"enterSeconds\":%.3f,\"joins\":%u,", readyCount, closedCount,
         refusedCount, enterSeconds, joined);
  printf("\"expected\":%llu,\"seen\":%llu,\"repeated\":%llu,\"errors\":%llu,\"seconds\":%.3f,", (unsigned long long)expected,
         (unsigned long long)seen, (unsigned long long)repeated, (unsigned long long)errors, seconds);
  printf("\"p50Ms\":%.3f,\"p99Ms\":%.3f,\"maxMs\":%.3f,", percentileMs(&latency, 0.5), percentileMs(&latency, 0.99),
         milliseconds(latency.max));
  printf("\"clientCpuSeconds\":%.3f,\"serverCpuSeconds\":%.3f}\n", clientCpu, serverCpu);
  return 0;
}
