// Measuring for the load client: the clock, a latency histogram and what /proc says of the server's process.
// The histogram is log-linear (64 steps per power of two, so 1.6 % wide at worst): recording a delivery is two
// shifts and an increment, which is what lets every delivery be recorded instead of a sample.
#ifndef LOAD_MEASURE_H
#define LOAD_MEASURE_H
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t Nanos;
#define SECOND 1000000000ull
#define STEP_BITS 6
#define STEPS (1u << STEP_BITS)

static Nanos clockNanos(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (Nanos)t.tv_sec * SECOND + (Nanos)t.tv_nsec;
}

typedef struct {
  uint64_t count;
  Nanos max;
  uint64_t steps[64 * STEPS];
} Histogram;

static inline unsigned stepOf(Nanos value) {
  if (value < STEPS) return (unsigned)value;
  unsigned shift = 63u - (unsigned)__builtin_clzll(value) - STEP_BITS;
  return ((shift + 1) << STEP_BITS) + (unsigned)((value >> shift) & (STEPS - 1));
}

static inline void record(Histogram *h, Nanos value) {
  h->count++;
  if (value > h->max) h->max = value;
  h->steps[stepOf(value)]++;
}

static double milliseconds(Nanos value) { return (double)value / 1e6; }

static double percentileMs(const Histogram *h, double share) {
  uint64_t wanted = (uint64_t)((double)h->count * share), seen = 0;
  for (unsigned i = 0; i < 64 * STEPS; i++) {
    seen += h->steps[i];
    if (seen <= wanted || h->steps[i] == 0) continue;
    if (i < STEPS) return milliseconds(i);
    unsigned shift = (i >> STEP_BITS) - 1;
    return milliseconds(((Nanos)(STEPS + (i & (STEPS - 1))) << shift) + ((1ull << shift) >> 1));
  }
  return milliseconds(h->max);
}

static double ownCpuSeconds(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

// Fields 14 and 15 of /proc/<pid>/stat; the command name before them may hold spaces, so reading starts at its ')'.
static double processCpuSeconds(long pid) {
  char path[64], line[2048];
  snprintf(path, sizeof path, "/proc/%ld/stat", pid);
  FILE *file = pid ? fopen(path, "r") : NULL;
  if (!file) return 0;
  size_t n = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  line[n] = 0;
  const char *rest = strrchr(line, ')');
  unsigned long user = 0, kernel = 0;
  if (!rest || sscanf(rest + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lu %lu", &user, &kernel) != 2) return 0;
  return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static long processRssKb(long pid) {
  char path[64], line[256];
  snprintf(path, sizeof path, "/proc/%ld/status", pid);
  FILE *file = pid ? fopen(path, "r") : NULL;
  if (!file) return 0;
  long kb = 0;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "VmRSS: %ld", &kb) == 1) break;
  fclose(file);
  return kb;
}
#endif
