/*
 * What memory itself costs, without Tandem: the control of bench/load.ts and bench/idle.ts. Build: gcc -O2 -march=native -pthread memory.c -o memory
 *
 *     memory touch MIB THREADS    touches fresh memory, prints ms and exits
 *     memory read MIB THREADS     fills memory, prints 0, then reads all of it for every line on stdin and prints ms
 *
 * Memory is asked for in huge pages, as arenas are; threads take 2 MiB at a time.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BLOCK = 2 << 20, PAGE = 4096, LINE = 64, MOST_THREADS = 256 };

static char *base;
static size_t total, next;
static uint64_t sink;

static void touch(char *block) {
  for (size_t at = 0; at < BLOCK; at += PAGE) block[at] = 1;
}

static void fill(char *block) { memset(block, 1, BLOCK); }

static void read_all(char *block) {
  uint64_t sum = 0;
  for (size_t at = 0; at < BLOCK; at += LINE) sum += *(volatile uint64_t *)(block + at);
  __atomic_fetch_add(&sink, sum, __ATOMIC_RELAXED);
}

static void *work(void *visit) {
  for (size_t at; (at = __atomic_fetch_add(&next, BLOCK, __ATOMIC_RELAXED)) < total;) ((void (*)(char *))visit)(base + at);
  return NULL;
}

/* Visits every block once; milliseconds, below 0 when a thread cannot be had. */
static double pass(void (*visit)(char *), int threads) {
  struct timespec begin, end;
  pthread_t ids[MOST_THREADS];
  next = 0;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int i = 0; i < threads; i++)
    if (pthread_create(&ids[i], NULL, work, (void *)visit) != 0) return -1;
  for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
  clock_gettime(CLOCK_MONOTONIC, &end);
  return (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6;
}

static int tell(double ms) {
  if (ms < 0) return 1;
  printf("%.2f\n", ms);
  return fflush(stdout);
}

int main(int count, char **arguments) {
  const int threads = count == 4 ? atoi(arguments[3]) : 0;
  if (threads < 1 || threads > MOST_THREADS) return 2;
  total = (size_t)atoi(arguments[2]) * (1 << 20) / BLOCK * BLOCK;
  char *memory = mmap(NULL, total + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return 1;
  base = (char *)(((uintptr_t)memory + BLOCK - 1) / BLOCK * BLOCK);
  madvise(base, total, MADV_HUGEPAGE);
  if (strcmp(arguments[1], "touch") == 0) return tell(pass(touch, threads));
  if (pass(fill, threads) < 0 || tell(0) != 0) return 1;
  for (int letter; (letter = getchar()) != EOF;)
    if (letter == '\n' && tell(pass(read_all, threads)) != 0) return 1;
  return 0;
}
