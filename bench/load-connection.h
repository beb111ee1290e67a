// The sockets of the load client: connecting, the response's head, and cutting what arrives into messages, which go to
// onMessage(). A connection lives from dial() to closeConnection(); nothing is retried.
#ifndef LOAD_CONNECTION_H
#define LOAD_CONNECTION_H
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "load-measure.h"
#include "load-options.h"
#include "load-wire.h"

#define SCRATCH (1u << 19)
#define FRAME_MAX 60000
#define PORTS_PER_ADDRESS 20000

typedef struct {
  int fd;
  enum { CONNECTING, HEAD, OPEN, CLOSED } state;
  bool events, chunked, ready, publisher;
  const char *path, *hello;
  uint32_t next;
  Chunks chunks;
  char *kept;
  size_t keptLength, keptRoom;
} Connection;

static int poller, readyCount, closedCount, refusedCount;
static char scratch[SCRATCH];

static void onMessage(Connection *c, const char *text, size_t n, Nanos now);

static void closeConnection(Connection *c) {
  if (c->state == CLOSED) return;
  if (c->publisher) fail("the publisher's connection was closed");
  if (c->state == OPEN) closedCount++;
  else refusedCount++;
  if (c->ready) readyCount--;
  c->ready = false;
  c->state = CLOSED;
  close(c->fd);
}

static void writeAll(Connection *c, const void *data, size_t n) {
  const char *at = data;
  while (n) {
    ssize_t wrote = write(c->fd, at, n);
    if (wrote > 0) {
      at += wrote, n -= (size_t)wrote;
    } else if (wrote < 0 && errno == EAGAIN) {
      struct pollfd p = {.fd = c->fd, .events = POLLOUT};
      if (poll(&p, 1, 5000) <= 0) fail("the server does not read");
    } else {
      closeConnection(c);
      return;
    }
  }
}

static void sendText(Connection *c, const char *text) {
  static uint8_t frame[FRAME_MAX + 16];
  if (strlen(text) > FRAME_MAX) fail("a frame is too long");
  writeAll(c, frame, maskedFrame(frame, OPCODE_TEXT, text, strlen(text)));
}

static size_t takeFrames(Connection *c, const char *data, size_t n, Nanos now) {
  size_t used = 0;
  Frame frame;
  ssize_t took;
  while (c->state == OPEN && (took = readFrame(data + used, n - used, &frame)) != 0) {
    if (took < 0 || frame.opcode == OPCODE_CLOSE) {
      closeConnection(c);
      return n;
    }
    used += (size_t)took;
    if (frame.opcode == OPCODE_TEXT) onMessage(c, frame.payload, frame.length, now);
    if (frame.opcode == OPCODE_PING) {
      uint8_t pong[160];
      writeAll(c, pong, maskedFrame(pong, OPCODE_PONG, frame.payload, frame.length));
    }
  }
  return used;
}

static size_t takeEvents(Connection *c, const char *data, size_t n, Nanos now) {
  size_t used = 0, took;
  while ((took = eventLength(data + used, n - used))) {
    onMessage(c, data + used, took, now);
    used += took;
  }
  return used;
}

// Length of the response's head, 0 when it is not whole yet.
static size_t takeHead(Connection *c, char *data, size_t n) {
  char *end = memmem(data, n, "\r\n\r\n", 4);
  if (!end) return 0;
  *end = 0;
  if (!strstr(data, c->events ? " 200 " : " 101 ")) {
    if (!refusedCount) fprintf(stderr, "load: refused with %.*s\n", 200, data);
    closeConnection(c);
    return n;
  }
  c->chunked = c->events && strcasestr(data, "transfer-encoding: chunked");
  c->state = OPEN;
  if (c->publisher) {
    if (*want.publishHello) sendText(c, want.publishHello);
    return (size_t)(end + 4 - data);
  }
  if (!*want.ready) c->ready = true, readyCount++;
  if (!c->events && *c->hello) sendText(c, c->hello);
  return (size_t)(end + 4 - data);
}

static void keep(Connection *c, const char *data, size_t n) {
  if (n >= SCRATCH / 2) {
    fprintf(stderr, "load: a frame is larger than the client's buffer\n");
    closeConnection(c);
    return;
  }
  if (n > c->keptRoom && !(c->kept = realloc(c->kept, c->keptRoom = n * 2))) fail("out of memory");
  if (n) memcpy(c->kept, data, n);
  c->keptLength = n;
}

static void receive(Connection *c) {
  if (c->keptLength) memcpy(scratch, c->kept, c->keptLength);
  char *fresh = scratch + c->keptLength;
  ssize_t got = read(c->fd, fresh, SCRATCH - c->keptLength);
  if (got <= 0) {
    if (got == 0 || errno != EAGAIN) closeConnection(c);
    return;
  }
  Nanos now = clockNanos();
  size_t used = 0, total = c->keptLength + (size_t)got;
  if (c->state == HEAD) {
    if (!(used = takeHead(c, scratch, total))) {
      keep(c, scratch, total);
      return;
    }
    fresh = scratch + used;
  }
  if (c->chunked) {
    total = (size_t)(fresh - scratch) + unchunk(&c->chunks, fresh, (size_t)(scratch + total - fresh));
    if (c->chunks.ended) closeConnection(c);
  }
  if (c->state != OPEN) return;
  used += (c->events ? takeEvents : takeFrames)(c, scratch + used, total - used, now);
  if (c->state == OPEN) keep(c, scratch + used, total - used);
}

// Subscribers take turns between the two servers when there is a peer.
static int portFor(int index, bool isPublisher) {
  if (isPublisher) return want.publishPort;
  return want.peerPort && index % 2 ? want.peerPort : want.port;
}

static void dial(Connection *c, int index, bool events, bool isPublisher) {
  int on = 1;
  *c = (Connection){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), .events = events, .publisher = isPublisher,
                    .path = isPublisher ? want.publishPath : want.path, .hello = want.hello};
  if (c->fd < 0) fail("socket");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  // One source address has about 28,000 ports on loopback; further subscribers come from 127.0.0.2 and on.
  struct sockaddr_in from = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(index / PORTS_PER_ADDRESS))};
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)portFor(index, isPublisher)),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) fail("bind");
  if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) fail("connect");
  struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e)) fail("epoll");
}

static void onConnected(Connection *c) {
  char head[4096];
  size_t n = requestHead(head, sizeof head, c->path, want.port, c->events);
  if (!n) fail("the path is too long");
  c->state = HEAD;
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
  writeAll(c, head, n);
}

static void turn(int timeoutMs) {
  struct epoll_event events[512];
  int n = epoll_wait(poller, events, 512, timeoutMs);
  for (int i = 0; i < n; i++) {
    Connection *c = events[i].data.ptr;
    if (c->state == CLOSED) continue;
    if (c->state == CONNECTING) onConnected(c);
    else receive(c);
  }
}

static void idle(double seconds) {
  for (Nanos end = clockNanos() + (Nanos)(seconds * SECOND), now; (now = clockNanos()) < end;)
    turn((int)((end - now) / 1000000) + 1);
}
#endif
