// Stands between one program and the system's wall clock: what it reads is off by as many
// nanoseconds as a file says that the test may write at any moment. The monotonic clock is left alone.
//
// Waits until a moment of the wall clock end when that clock shows it, as the kernel has it when the
// clock is set: librdkafka waits in this way, by cnd_timedwait, which libfaketime passes over.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define LOOK_AGAIN (20 * 1000000LL)

static volatile int64_t *skew;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HOOKWELL_TESTS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) abort();
    void *page = mmap(NULL, sizeof *skew, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) abort();
    skew = page;
    close(file);
}

static int64_t to_nanos(const struct timespec *at) { return at->tv_sec * SECOND + at->tv_nsec; }

static void from_nanos(int64_t nanos, struct timespec *at) {
    at->tv_sec = nanos / SECOND;
    at->tv_nsec = nanos % SECOND;
}

static int real_clock(clockid_t clock, struct timespec *at) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
    return next(clock, at);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = real_clock(clock, at);
    if (result == 0 && skew && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        from_nanos(to_nanos(at) + *skew, at);
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
    if (base != TIME_UTC) return 0;
    clock_gettime(CLOCK_REALTIME, at);
    return base;
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    static int (*next)(cnd_t *, mtx_t *, const struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "cnd_timedwait");
    for (;;) {
        struct timespec real, look;
        real_clock(CLOCK_REALTIME, &real);
        int64_t left = to_nanos(until) - to_nanos(&real) - *skew;
        from_nanos(to_nanos(&real) + (left < LOOK_AGAIN ? left : LOOK_AGAIN), &look);
        int result = next(condition, mutex, &look);
        if (result != thrd_timedout || left <= LOOK_AGAIN) return result;
    }
}
