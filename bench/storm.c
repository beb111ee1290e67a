// A native client for storms: one process, one epoll loop, many connections that come back at the same moment and each
// say where they stood. It counts what each of them is sent, and prints one line of JSON.
//
// 1. connect: all at once, as fast as the server accepts them. The lines of --plan are handed out in turn, each
//    `path TAB hello TAB offset`: what to ask for, what a WebSocket says first, and the first offset that is missing;
// 2. count: a connection is done with its --expect messages, in ascending offset and each once. A WebSocket that is told to
//    retry says its line again within a second, as a client does that keeps to the protocol;
// 3. report, when all are done or after --deadline seconds. Whether the counts are good is for the caller to judge;
// 4. stay until the standard input ends, then exit 0: that all leave at once is a storm of its own.
#define _GNU_SOURCE
#include "load-connection.h"

// Less than a listening socket holds back: one that is dropped there comes again a second later, whatever the server does.
#define HANDSHAKES_MAX 400

typedef struct {
  const char *path, *hello;
  uint32_t first;
} Line;

static Connection *clients;
static uint32_t *received;
static Line *lines;
static int lineCount, begun, doneCount;
static uint64_t repeated, missed, gaps, errors, retried;
static Nanos *retryAt;
static int retryCount;
static Nanos beganAt, lastDoneAt;
static Histogram done;

static void readPlan(void) {
  FILE *file = fopen(want.plan, "r");
  if (!file) fail("the plan cannot be read");
  char *text = NULL;
  size_t room = 0;
  ssize_t n;
  while ((n = getline(&text, &room, file)) > 0) {
    char *line = strndup(text, (size_t)n), *hello = strchr(line, '\t'), *first = hello ? strchr(hello + 1, '\t') : NULL;
    if (!first || !(lines = realloc(lines, (size_t)(lineCount + 1) * sizeof *lines))) fail("a line of the plan");
    *hello = *first = 0;
    lines[lineCount++] = (Line){.path = line, .hello = hello + 1, .first = (uint32_t)atoi(first + 1)};
  }
  free(text);
  fclose(file);
  if (!lineCount) fail("the plan is empty");
}

static void onOffset(Connection *c, uint32_t offset, Nanos now) {
  int index = (int)(c - clients);
  if (offset < c->next) {
    repeated++;
    return;
  }
  missed += offset - c->next;
  c->next = offset + 1;
  if (++received[index] != (uint32_t)want.expect) return;
  doneCount++;
  lastDoneAt = now;
  record(&done, now - beganAt);
}

static void complain(const char *text, size_t n) {
  if (gaps + errors == 1) fprintf(stderr, "storm: a client got %.*s\n", (int)(n < 300 ? n : 300), text);
}

// The frame's type is at its beginning; the data of the messages here holds no member of these names.
static void onMessage(Connection *c, const char *text, size_t n, Nanos now) {
  const char *type = memmem(text, n < 200 ? n : 200, "\"type\":\"", 8);
  if (!type) return;
  type += 8;
  if (!strncmp(type, "message\"", 8)) {
    const char *offset = memmem(type, n - (size_t)(type - text), "\"offset\":", 9);
    if (offset) onOffset(c, (uint32_t)strtoul(offset + 9, NULL, 10), now);
  } else if (!strncmp(type, "gap\"", 4)) {
    gaps++;
    complain(text, n);
  } else if (!strncmp(type, "error\"", 6)) {
    int index = (int)(c - clients);
    if (!c->events && !received[index] && !retryAt[index] && memmem(type, n - (size_t)(type - text), "\"retryable\":true", 16)) {
      retried++;
      retryCount++;
      retryAt[index] = now + SECOND / 4 + (Nanos)(rand() % 750) * (SECOND / 1000);
      return;
    }
    errors++;
    complain(text, n);
  }
}

static void retryDue(void) {
  if (!retryCount) return;
  Nanos now = clockNanos();
  for (int index = 0; index < begun; index++) {
    if (!retryAt[index] || retryAt[index] > now) continue;
    retryAt[index] = 0;
    retryCount--;
    if (clients[index].state == OPEN) sendText(&clients[index], clients[index].hello);
  }
}

static int openCount(void) { return begun - refusedCount - closedCount - readyCount; }

static void connectMore(void) {
  while (begun < want.connections && openCount() < HANDSHAKES_MAX) {
    Connection *c = &clients[begun];
    const Line *line = &lines[begun % lineCount];
    dial(c, begun, want.events, false);
    c->path = line->path;
    c->hello = line->hello;
    c->next = line->first;
    begun++;
  }
}

int main(int argc, char **argv) {
  readOptions(argc, argv);
  readPlan();
  struct rlimit files = {.rlim_cur = (rlim_t)want.connections + 64, .rlim_max = (rlim_t)want.connections + 64}, now;
  getrlimit(RLIMIT_NOFILE, &now);
  if (files.rlim_max < now.rlim_max) files.rlim_max = now.rlim_max;
  if (now.rlim_cur < files.rlim_cur && setrlimit(RLIMIT_NOFILE, &files)) fail("the open files limit is too low");
  poller = epoll_create1(EPOLL_CLOEXEC);
  clients = calloc((size_t)want.connections, sizeof *clients);
  received = calloc((size_t)want.connections, sizeof *received);
  retryAt = calloc((size_t)want.connections, sizeof *retryAt);
  if (poller < 0 || !clients || !received || !retryAt) fail("start");
  errno = 0;

  beganAt = lastDoneAt = clockNanos();
  Nanos deadline = beganAt + (Nanos)(want.deadlineSeconds * SECOND), connectedAt = 0;
  while (doneCount + refusedCount + closedCount < want.connections && clockNanos() < deadline) {
    connectMore();
    turn(10);
    retryDue();
    if (!connectedAt && readyCount + refusedCount + closedCount >= want.connections) connectedAt = clockNanos();
  }
  // Repeats come after the first copy: whatever still travels is let in before the counting ends.
  idle(0.3);
  long rss = processRssKb(want.pid);
  printf("{\"done\":%d,\"refused\":%d,\"closed\":%d,\"gaps\":%llu,\"errors\":%llu,\"repeated\":%llu,\"missed\":%llu,",
         doneCount, refusedCount, closedCount, (unsigned long long)gaps, (unsigned long long)errors,
         (unsigned long long)repeated, (unsigned long long)missed);
  printf("\"retried\":%llu,", (unsigned long long)retried);
  printf("\"connectSeconds\":%.3f,\"seconds\":%.3f,\"p50Ms\":%.1f,\"p99Ms\":%.1f,\"rssKb\":%ld,\"clientCpuSeconds\":%.2f}\n",
         connectedAt ? (double)(connectedAt - beganAt) / SECOND : 0, (double)(lastDoneAt - beganAt) / SECOND,
         percentileMs(&done, 0.5), percentileMs(&done, 0.99), rss, ownCpuSeconds());
  fflush(stdout);
  while (read(STDIN_FILENO, scratch, sizeof scratch) > 0) continue;
  return 0;
}
