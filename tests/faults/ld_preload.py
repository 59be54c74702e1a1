"""Small libraries that stand before the system's: compiled for a test, and put before a program by LD_PRELOAD."""

from __future__ import annotations

import subprocess
from pathlib import Path


def compiled(source: str, folder: Path) -> str:
    """The library made of this C source; needs `cc`."""
    text, library = folder / "before.c", folder / "before.so"
    text.write_text(source)
    command = ["cc", "-D_GNU_SOURCE", "-w", "-shared", "-fPIC", "-o", str(library), str(text), "-ldl"]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    return str(library)


#: Every write and read does half of what is asked for, and each seventh is interrupted first. Puts a byte into the
#: file that FAULTS_SHORT names when it was in the way.
SHORT = r"""
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int turn;

static int interrupted(void) {
    if (++turn % 7) return 0;
    errno = EINTR;
    return 1;
}

#define HALF(n) ((n) > 1 ? (n) / 2 : (n))
#define REAL(name) \
    static ssize_t (*real)(); \
    if (!real) real = (ssize_t (*)())dlsym(RTLD_NEXT, #name); \
    if (interrupted()) return -1;

ssize_t write(int fd, const void *from, size_t n) { REAL(write) return real(fd, from, HALF(n)); }
ssize_t read(int fd, void *to, size_t n) { REAL(read) return real(fd, to, HALF(n)); }
ssize_t pread(int fd, void *to, size_t n, off_t at) { REAL(pread) return real(fd, to, HALF(n), at); }
ssize_t pread64(int fd, void *to, size_t n, off_t at) { REAL(pread64) return real(fd, to, HALF(n), at); }

__attribute__((destructor)) static void say(void) {
    char *path = getenv("FAULTS_SHORT");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    ssize_t (*real)() = (ssize_t (*)())dlsym(RTLD_NEXT, "write");
    if (fd >= 0 && turn > 100) real(fd, "x", 1);
}
"""

#: The date is off by so many seconds as the file that FAULTS_CLOCK names says at that moment. Unlike `faketime` it
#: leaves the monotonic clock, and with it every wait, alone: Python 3.11 neither sleeps nor waits under that one.
CLOCK = r"""
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
    char text[32] = "0", *path = getenv("FAULTS_CLOCK");
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return atol(text);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, now);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return failed;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec real;
    clock_gettime(CLOCK_REALTIME, &real);
    now->tv_sec = real.tv_sec;
    now->tv_usec = real.tv_nsec / 1000;
    return 0;
}
"""
