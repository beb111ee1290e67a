// The client's side of the wire: request heads, WebSocket frames, HTTP chunks and event-stream events. Pure parsing of
// bytes in memory; sockets belong to load-connection.h. Every parser takes whole units only and says how much it took,
// so that the caller can keep the rest until more has arrived.
#ifndef LOAD_WIRE_H
#define LOAD_WIRE_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

enum { OPCODE_TEXT = 1, OPCODE_CLOSE = 8, OPCODE_PING = 9, OPCODE_PONG = 10 };

static size_t requestHead(char *out, size_t room, const char *path, int port, bool events) {
  const char *kind = events ? "Accept: text/event-stream\r\n"
                            : "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: c29icmFuaWUtYmVuY2gtMQ==\r\n";
  int n = snprintf(out, room, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n", path, port, kind);
  return n > 0 && (size_t)n < room ? (size_t)n : 0;
}

// The masking key is zero: allowed on the wire, and the payload stays readable, so that a prepared frame can be sent
// again and again with only its digits changed.
static size_t maskedFrame(uint8_t *out, int opcode, const char *payload, size_t n) {
  size_t at = 0;
  out[at++] = (uint8_t)(0x80 | opcode);
  if (n < 126) {
    out[at++] = (uint8_t)(0x80 | n);
  } else {
    out[at++] = 0x80 | 126;
    out[at++] = (uint8_t)(n >> 8);
    out[at++] = (uint8_t)n;
  }
  memset(out + at, 0, 4);
  memcpy(out + at + 4, payload, n);
  return at + 4 + n;
}

typedef struct {
  int opcode;
  const char *payload;
  size_t length;
} Frame;

// Bytes taken, 0 when the frame is not whole yet, -1 for what a server may not send (masked or in fragments).
static ssize_t readFrame(const char *data, size_t n, Frame *frame) {
  if (n < 2) return 0;
  const uint8_t *b = (const uint8_t *)data;
  if (!(b[0] & 0x80) || (b[1] & 0x80)) return -1;
  uint64_t length = b[1] & 127;
  size_t head = 2;
  if (length >= 126) {
    size_t wide = length == 126 ? 2 : 8;
    head += wide;
    if (n < head) return 0;
    length = 0;
    for (size_t i = 0; i < wide; i++) length = length << 8 | b[2 + i];
  }
  if (n - head < length) return 0;
  *frame = (Frame){.opcode = b[0] & 15, .payload = data + head, .length = length};
  return (ssize_t)(head + length);
}

typedef struct {
  enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_TAIL } part;
  size_t left;
  bool inExtension, sawDigit, ended;
} Chunks;

// Takes the chunk framing out, in place; returns how much of the body is left in `data`.
static size_t unchunk(Chunks *c, char *data, size_t n) {
  size_t in = 0, out = 0;
  while (in < n && !c->ended) {
    if (c->part == CHUNK_DATA) {
      size_t take = c->left < n - in ? c->left : n - in;
      memmove(data + out, data + in, take);
      in += take, out += take, c->left -= take;
      if (!c->left) c->part = CHUNK_TAIL;
      continue;
    }
    char byte = data[in++];
    if (byte == '\r') continue;
    if (c->part == CHUNK_TAIL) {
      if (byte == '\n') *c = (Chunks){.part = CHUNK_SIZE};
    } else if (byte == '\n' && c->sawDigit) {
      c->ended = c->left == 0;
      c->part = CHUNK_DATA;
    } else if (byte == ';') {
      c->inExtension = true;
    } else if (!c->inExtension) {
      unsigned digit = (unsigned)(byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
      c->left = c->left * 16 + digit;
      c->sawDigit = true;
    }
  }
  return out;
}

// Length of the first event with its blank line, 0 when it is not whole yet.
static size_t eventLength(const char *data, size_t n) {
  const char *line = data, *end = data + n;
  while (line < end) {
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    if (!stop) return 0;
    if (stop == line || (stop == line + 1 && *line == '\r')) return (size_t)(stop + 1 - data);
    line = stop + 1;
  }
  return 0;
}
#endif
