// Publishers at full speed: --connections WebSockets, each with a channel of its own and --window publications that wait
// for their answer. Counts the answers, checks that every channel's offsets rise by one, and prints one line of JSON.
//
// "@@@@" in the --publish frame stands for the publisher's number, four digits. Answers are read without parsing: the
// order of one connection's answers is the order of its publications.
#define _GNU_SOURCE
#include "load-connection.h"

#define REPLY "\"type\":\"published\""
#define OFFSET "\"offset\":"

typedef struct {
  uint8_t *frames;
  size_t frameLength;
  uint64_t offset, acknowledged;
  int due;
} Lane;

static Connection *publishers;
static Lane *lanes;
static uint64_t acknowledged, misplaced, errors;

static void onMessage(Connection *c, const char *text, size_t n, Nanos now) {
  (void)now;
  Lane *lane = &lanes[c - publishers];
  if (!memmem(text, n, REPLY, sizeof REPLY - 1)) {
    if (!memmem(text, n, "\"type\":\"error\"", 14)) return;
    if (errors++ == 0) fprintf(stderr, "load: a publisher got %.*s\n", (int)(n < 300 ? n : 300), text);
    lane->due++;
    return;
  }
  const char *digits = memmem(text, n, OFFSET, sizeof OFFSET - 1);
  uint64_t offset = 0;
  for (digits = digits ? digits + sizeof OFFSET - 1 : text; *digits >= '0' && *digits <= '9'; digits++)
    offset = offset * 10 + (uint64_t)(*digits - '0');
  if (offset == 0 || (lane->acknowledged > 0 && offset != lane->offset + 1)) misplaced++;
  lane->offset = offset;
  lane->acknowledged++;
  lane->due++;
  acknowledged++;
}

// A whole window of equal frames is laid out once, so that whatever is due goes out in one write.
static void prepareLane(int index) {
  Lane *lane = &lanes[index];
  char text[FRAME_MAX];
  size_t n = strlen(want.publish);
  if (n >= sizeof text) fail("--publish is too long");
  memcpy(text, want.publish, n + 1);
  char *at = strstr(text, "@@@@"), number[8];
  if (!at) fail("--publish must hold @@@@");
  snprintf(number, sizeof number, "%04d", index % 10000);
  memcpy(at, number, 4);
  lane->frames = malloc((n + 16) * (size_t)want.window);
  if (!lane->frames) fail("out of memory");
  lane->frameLength = maskedFrame(lane->frames, OPCODE_TEXT, text, n);
  for (int i = 1; i < want.window; i++)
    memcpy(lane->frames + (size_t)i * lane->frameLength, lane->frames, lane->frameLength);
  lane->due = want.window;
}

static uint64_t publishDue(void) {
  uint64_t sent = 0;
  for (int i = 0; i < want.connections; i++) {
    Lane *lane = &lanes[i];
    int due = lane->due;
    lane->due = 0;
    if (due) writeAll(&publishers[i], lane->frames, lane->frameLength * (size_t)due);
    sent += (uint64_t)due;
  }
  return sent;
}

int main(int argc, char **argv) {
  readOptions(argc, argv);
  poller = epoll_create1(EPOLL_CLOEXEC);
  publishers = calloc((size_t)want.connections, sizeof *publishers);
  lanes = calloc((size_t)want.connections, sizeof *lanes);
  if (poller < 0 || !publishers || !lanes) fail("start");
  errno = 0;
  for (int i = 0; i < want.connections; i++) {
    prepareLane(i);
    dial(&publishers[i], 0, false, true);
    for (Nanos end = clockNanos() + 10 * SECOND; publishers[i].state != OPEN; turn(10))
      if (clockNanos() > end) fail("a publisher was not accepted in time");
  }
  idle(want.settleSeconds);

  double clientCpu = ownCpuSeconds(), serverCpu = processCpuSeconds(want.pid);
  uint64_t sent = 0;
  Nanos began = clockNanos(), end = began + (Nanos)(want.seconds * SECOND), stopped;
  while ((stopped = clockNanos()) < end) {
    sent += publishDue();
    turn(10);
  }
  uint64_t inTime = acknowledged;
  clientCpu = ownCpuSeconds() - clientCpu;
  serverCpu = processCpuSeconds(want.pid) - serverCpu;
  Nanos deadline = clockNanos() + (Nanos)(want.deadlineSeconds * SECOND);
  while (acknowledged + errors < sent && clockNanos() < deadline) turn(10);
  double seconds = (double)(stopped - began) / SECOND;
  printf("{\"published\":%llu,\"acknowledged\":%llu,\"misplaced\":%llu,\"errors\":%llu,", (unsigned long long)sent,
         (unsigned long long)acknowledged, (unsigned long long)misplaced, (unsigned long long)errors);
  printf("\"seconds\":%.4f,\"perSecond\":%.0f,\"clientCpuSeconds\":%.3f,\"serverCpuSeconds\":%.3f}\n", seconds,
         (double)inTime / seconds, clientCpu, serverCpu);
  return 0;
}
