// A native load client: one process, one epoll loop, many subscribers on loopback. It counts every publication on every
// subscriber, checks their order by the number inside, and prints one line of JSON.
//
// 1. connect: N WebSocket or event-stream subscribers, each counted as ready once a frame holds the --ready text; with
//    --peer-port every other one goes to that second server, and with --spread the "@@00000000" of the --hello becomes
//    another number for each so many of them;
// 2. publish: through one WebSocket of its own, either with --window publications in flight (the next one goes out when
//    every subscriber has the oldest) or at a fixed --rate, for --seconds;
// 3. drain: waits until everything has arrived everywhere, or for --deadline seconds;
// 4. report, exit 0. Whether the counts are good is for the caller to judge; exit 1 means that the run did not happen.
//
// A publication is whatever frame carries "@@" and 8 hexadecimal digits; the --publish frame holds "@@00000000".
#define _GNU_SOURCE
#include "load-connection.h"

#define RING (1u << 16)
#define DIGITS 8
#define CONNECTING_MAX 256

static Connection *subscribers, publisher;
static int publisherErrors;
static uint64_t deliveries, repeated, missed;
static uint32_t sent, oldest;
static Nanos sentAt[RING], lastDeliveryAt;
static uint32_t arrived[RING];
static Histogram latency;
static uint8_t publishFrame[FRAME_MAX + 16];
static size_t publishFrameLength, publishDigitsAt, markerHint;

// Frames of one kind carry the marker at the same place nearly always, so the last place is tried before a search.
static const char *findDigits(const char *text, size_t n) {
  const char *hint = text + markerHint;
  if (n >= markerHint + 2 + DIGITS && hint[0] == '@' && hint[1] == '@') return hint + 2;
  const char *at = text, *end = text + n;
  while ((at = memchr(at, '@', (size_t)(end - at)))) {
    if (end - at >= 2 + DIGITS && at[1] == '@') {
      markerHint = (size_t)(at - text);
      return at + 2;
    }
    at++;
  }
  return NULL;
}

static uint32_t parseDigits(const char *digits) {
  uint32_t value = 0;
  for (int i = 0; i < DIGITS; i++) value = value << 4 | (uint32_t)((digits[i] & 15) + (digits[i] >> 6) * 9);
  return value;
}

static void onPublication(Connection *c, uint32_t number, Nanos now) {
  if (number < c->next) {
    repeated++;
    return;
  }
  missed += number - c->next;
  c->next = number + 1;
  deliveries++;
  arrived[number % RING]++;
  lastDeliveryAt = now;
  record(&latency, now - sentAt[number % RING]);
}

static void onMessage(Connection *c, const char *text, size_t n, Nanos now) {
  if (c->publisher) {
    if (memmem(text, n, "\"type\":\"error\"", 14) && publisherErrors++ == 0)
      fprintf(stderr, "load: the publisher got %.*s\n", (int)(n < 300 ? n : 300), text);
  } else if (!c->ready) {
    if (memmem(text, n, want.ready, strlen(want.ready))) c->ready = true, readyCount++;
  } else {
    const char *digits = findDigits(text, n);
    if (digits) onPublication(c, parseDigits(digits), now);
  }
}

static const char *helloOf(int index) {
  const char *marker = want.spread ? strstr(want.hello, "@@00000000") : NULL;
  char *hello = marker ? strdup(want.hello) : NULL, digits[DIGITS + 3];
  if (!hello) return want.hello;
  snprintf(digits, sizeof digits, "%010d", index / want.spread);
  memcpy(hello + (marker - want.hello), digits, DIGITS + 2);
  return hello;
}

static void connectAll(int from, int to, Nanos deadline) {
  int begun = from;
  while (readyCount + refusedCount + closedCount < to) {
    if (clockNanos() > deadline) fail("the subscribers were not ready in time");
    while (begun < to && begun - readyCount - refusedCount - closedCount < CONNECTING_MAX) {
      dial(&subscribers[begun], begun, want.events, false);
      subscribers[begun].hello = helloOf(begun);
      begun++;
    }
    turn(10);
  }
}

static void preparePublisher(void) {
  size_t n = strlen(want.publish);
  const char *marker = strstr(want.publish, "@@00000000");
  if (!marker || n > FRAME_MAX) fail("--publish must hold @@00000000 and at most 60000 bytes");
  publishFrameLength = maskedFrame(publishFrame, OPCODE_TEXT, want.publish, n);
  publishDigitsAt = publishFrameLength - n + (size_t)(marker - want.publish) + 2;
  dial(&publisher, 0, false, true);
  for (Nanos end = clockNanos() + 10 * SECOND; publisher.state != OPEN;) {
    if (clockNanos() > end) fail("the publisher was not accepted in time");
    turn(10);
  }
  // What the hello asks for is answered by a frame that differs from server to server, so it is given time instead.
  if (*want.publishHello) idle(want.settleSeconds);
}

static double serversCpuSeconds(void) { return processCpuSeconds(want.pid) + processCpuSeconds(want.peerPid); }

static void publishOne(Nanos dueAt) {
  static const char hex[] = "0123456789abcdef";
  for (int i = 0; i < DIGITS; i++) publishFrame[publishDigitsAt + (size_t)i] = (uint8_t)hex[sent >> (28 - 4 * i) & 15];
  sentAt[sent % RING] = dueAt;
  arrived[sent % RING] = 0;
  sent++;
  writeAll(&publisher, publishFrame, publishFrameLength);
}

static bool allArrived(void) {
  while (oldest < sent && arrived[oldest % RING] >= (uint32_t)readyCount) oldest++;
  return oldest == sent;
}

static void publishForSeconds(Nanos begin) {
  Nanos end = begin + (Nanos)(want.seconds * SECOND), now;
  while ((now = clockNanos()) < end && readyCount) {
    allArrived();
    int waitMs = 10;
    if (want.rate > 0) {
      // Latency counts from when a publication was due: a server that stalls the publisher must not look quicker.
      Nanos due;
      while ((due = begin + (Nanos)(sent / want.rate * SECOND)) <= now && sent - oldest < RING) publishOne(due);
      waitMs = due > now ? (int)((due - now) / 1000000) : 0;
    } else {
      while (sent - oldest < (uint32_t)want.window) publishOne(clockNanos());
    }
    turn(waitMs);
  }
}

int main(int argc, char **argv) {
  readOptions(argc, argv);
  struct rlimit files = {.rlim_cur = (rlim_t)want.connections + 64, .rlim_max = (rlim_t)want.connections + 64}, now;
  getrlimit(RLIMIT_NOFILE, &now);
  if (files.rlim_max < now.rlim_max) files.rlim_max = now.rlim_max;
  if (now.rlim_cur < files.rlim_cur && setrlimit(RLIMIT_NOFILE, &files)) fail("the open files limit is too low");
  poller = epoll_create1(EPOLL_CLOEXEC);
  subscribers = calloc((size_t)want.connections, sizeof *subscribers);
  if (poller < 0 || !subscribers) fail("start");
  errno = 0;

  // Far beyond what they take: a machine that does much else as well is slow, and the figures of memory are right all the same.
  Nanos connectBegan = clockNanos(), connectDeadline = connectBegan + 600 * SECOND;
  if (want.warm) connectAll(0, want.warm, connectDeadline), idle(want.settleSeconds);
  long rssBefore = processRssKb(want.pid);
  connectAll(want.warm, want.connections, connectDeadline);
  double connectSeconds = (double)(clockNanos() - connectBegan) / SECOND;
  idle(want.settleSeconds);
  long rssAfter = processRssKb(want.pid);
  int subscriberCount = readyCount;

  double seconds = 0, clientCpu = 0, serverCpu = 0;
  if (*want.publish && want.seconds > 0 && readyCount) {
    preparePublisher();
    double clientCpuBefore = ownCpuSeconds(), serverCpuBefore = serversCpuSeconds();
    Nanos began = lastDeliveryAt = clockNanos();
    publishForSeconds(began);
    Nanos deadline = clockNanos() + (Nanos)(want.deadlineSeconds * SECOND);
    while (!allArrived() && clockNanos() < deadline) turn(10);
    seconds = (double)(lastDeliveryAt - began) / SECOND;
    clientCpu = ownCpuSeconds() - clientCpuBefore;
    serverCpu = serversCpuSeconds() - serverCpuBefore;
    // Repeats come after the first copy: whatever still travels is let in before the counting ends.
    idle(0.2);
  }
  printf("{\"subscribers\":%d,\"closed\":%d,\"refused\":%d,\"connectSeconds\":%.3f,", subscriberCount, closedCount,
         refusedCount, connectSeconds);
  printf("\"rssBeforeKb\":%ld,\"rssAfterKb\":%ld,\"rssEndKb\":%ld,\"kbPerConnection\":%.2f,", rssBefore, rssAfter,
         processRssKb(want.pid), (double)(rssAfter - rssBefore) / (want.connections - want.warm));
  printf("\"published\":%u,\"expected\":%llu,\"deliveries\":%llu,\"repeated\":%llu,\"missed\":%llu,", sent,
         (unsigned long long)sent * (unsigned long long)subscriberCount, (unsigned long long)deliveries,
         (unsigned long long)repeated, (unsigned long long)missed);
  printf("\"publisherErrors\":%d,\"seconds\":%.4f,\"deliveriesPerSecond\":%.0f,", publisherErrors, seconds,
         seconds > 0 ? (double)deliveries / seconds : 0);
  printf("\"p50Ms\":%.3f,\"p99Ms\":%.3f,\"maxMs\":%.3f,", percentileMs(&latency, 0.5), percentileMs(&latency, 0.99),
         milliseconds(latency.max));
  printf("\"clientCpuSeconds\":%.3f,\"serverCpuSeconds\":%.3f}\n", clientCpu, serverCpu);
  return 0;
}
