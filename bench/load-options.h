// What the load client was asked to do: its command line, read once.
#ifndef LOAD_OPTIONS_H
#define LOAD_OPTIONS_H
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_MAX 32768

static struct {
  int port, peerPort, publishPort, connections, window, warm, spread;
  bool events;
  long pid, peerPid;
  double seconds, rate, settleSeconds, deadlineSeconds;
  // Of a storm: a file with one connection a line, and how many messages each lacks.
  const char *plan;
  int expect;
  const char *path, *hello, *ready, *publishPath, *publishHello, *publish;
} want = {.connections = 100, .window = 1, .settleSeconds = 0.2, .deadlineSeconds = 15,
          .path = "/", .hello = "", .ready = "", .publishPath = "/", .publishHello = "", .publish = ""};

static void fail(const char *what) {
  fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(1);
}

static void readOptions(int argc, char **argv) {
  static const struct option names[] = {
      {"port", 1, 0, 'p'}, {"connections", 1, 0, 'c'}, {"window", 1, 0, 'w'}, {"warm", 1, 0, 'm'},
      {"events", 0, 0, 'e'}, {"pid", 1, 0, 'i'}, {"seconds", 1, 0, 's'}, {"rate", 1, 0, 'r'},
      {"settle", 1, 0, 't'}, {"deadline", 1, 0, 'd'}, {"path", 1, 0, 'a'}, {"hello", 1, 0, 'h'},
      {"ready", 1, 0, 'y'}, {"publish-path", 1, 0, 'b'}, {"publish", 1, 0, 'u'},
      {"peer-port", 1, 0, 'P'}, {"peer-pid", 1, 0, 'I'}, {"publish-port", 1, 0, 'B'}, {"publish-hello", 1, 0, 'H'},
      {"plan", 1, 0, 'n'}, {"expect", 1, 0, 'x'}, {"spread", 1, 0, 'S'},
      {0, 0, 0, 0}};
  for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (o) {
    case 'p': want.port = atoi(optarg); break;
    case 'c': want.connections = atoi(optarg); break;
    case 'w': want.window = atoi(optarg); break;
    case 'm': want.warm = atoi(optarg); break;
    case 'e': want.events = true; break;
    case 'i': want.pid = atol(optarg); break;
    case 's': want.seconds = atof(optarg); break;
    case 'r': want.rate = atof(optarg); break;
    case 't': want.settleSeconds = atof(optarg); break;
    case 'd': want.deadlineSeconds = atof(optarg); break;
    case 'a': want.path = optarg; break;
    case 'h': want.hello = optarg; break;
    case 'y': want.ready = optarg; break;
    case 'b': want.publishPath = optarg; break;
    case 'u': want.publish = optarg; break;
    case 'P': want.peerPort = atoi(optarg); break;
    case 'I': want.peerPid = atol(optarg); break;
    case 'B': want.publishPort = atoi(optarg); break;
    case 'H': want.publishHello = optarg; break;
    case 'n': want.plan = optarg; break;
    case 'x': want.expect = atoi(optarg); break;
    case 'S': want.spread = atoi(optarg); break;
    default: exit(1);
  }
  if (!want.port || want.connections < 1 || want.window < 1 || want.window > WINDOW_MAX || want.warm < 0 ||
      want.warm >= want.connections) fail("--port, --connections, --window or --warm is out of range");
  if (!want.publishPort) want.publishPort = want.port;
}
#endif
