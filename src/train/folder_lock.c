/* Owns the lock file of a folder and the thread that touches it. Invariant: while a lock is held, the file of that name
 * is the one that is open here and begins with this run's record. The thread touches the file, nothing else. */
#include "train/folder_lock.h"

#include "base/error.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* An age is told by two clocks, of this host and of the file system: only one of minutes is believed at once. */
enum { BEAT_SECONDS = 5, DEAD_SECONDS = 30, OLD_SECONDS = 600, OPENINGS = 100, RECORD_BYTES = 256 };

struct folder_lock {
    char *path;
    int descriptor;
    char record[RECORD_BYTES]; /* a line for people, then a number that no other run has */
    pthread_t toucher;
    bool ends; /* under `mutex` */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
};

static int fail(const char *path, const char *what)
{
    return error_set(ERROR_FILE, "%s: cannot %s: %s", path, what, strerror(errno));
}

static int make_record(folder_lock *l, const char *host)
{
    char began[64];
    uint64_t number;
    struct tm parts;
    time_t now = time(NULL);
    CHECK(getrandom(&number, sizeof number, 0) == sizeof number, ERROR_FILE, "%s: no random number for it", l->path);
    strftime(began, sizeof began, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&now, &parts));
    snprintf(l->record, sizeof l->record, "host %s, process %ld, since %s\n%016" PRIx64 "\n", host, (long)getpid(),
             began, number);
    return 0;
}

/* What the file of that name holds now, and when it was touched. Opened anew each time: network file systems show what
 * others did only then. False when there is none. */
static bool look(const char *path, char record[RECORD_BYTES], struct stat *info)
{
    int descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    ssize_t length = pread(descriptor, record, RECORD_BYTES - 1, 0);
    bool seen = length >= 0 && fstat(descriptor, info) == 0;
    record[seen ? length : 0] = '\0';
    close(descriptor);
    return seen;
}

/* The line for people; nothing from a file reaches the terminal unlooked at. */
static const char *first_line(char record[RECORD_BYTES])
{
    record[strcspn(record, "\n")] = '\0';
    for (char *c = record; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    return *record ? record : "it does not say which";
}

static int refuse(const char *folder, char record[RECORD_BYTES])
{
    return error_set(ERROR_FILE, "%s is in use by another training (%s); wait, or choose another folder", folder,
                     first_line(record));
}

static bool is_of_host(const char *record, const char *host)
{
    const char *name = record + strlen("host ");
    return strncmp(record, "host ", strlen("host ")) == 0 && strncmp(name, host, strlen(host)) == 0 &&
           name[strlen(host)] == ',';
}

/* Does someone touch the file? */
static bool is_touched(const folder_lock *l, const struct stat *first)
{
    for (int second = 0; second < DEAD_SECONDS; second++) {
        char record[RECORD_BYTES];
        struct stat info;
        sleep(1);
        if (!look(l->path, record, &info))
            return false; /* ended in order */
        if (info.st_mtim.tv_sec != first->st_mtim.tv_sec || info.st_mtim.tv_nsec != first->st_mtim.tv_nsec)
            return true;
    }
    return false;
}

/* Whether the run that left the record is alive, where the lock that this process has got does not tell. */
static int check_left_record(folder_lock *l, const char *folder, bool has_lock, logger *log)
{
    char record[RECORD_BYTES];
    struct stat info;
    if (!look(l->path, record, &info) || !*record || (has_lock && is_of_host(record, log->host)))
        return 0;
    if (difftime(time(NULL), info.st_mtime) > OLD_SECONDS)
        return 0;
    log_info(log, "%s: waiting up to %d s to see whether the run that made it is alive", l->path, DEAD_SECONDS);
    return is_touched(l, &info) ? refuse(folder, record) : 0;
}

static int write_record(folder_lock *l)
{
    const size_t length = strlen(l->record);
    if (ftruncate(l->descriptor, 0) != 0 || pwrite(l->descriptor, l->record, length, 0) != (ssize_t)length)
        return fail(l->path, "write");
    return 0;
}

/* Without locks, of runs that start in the same second the last one to write has the folder. */
static int confirm(const folder_lock *l, const char *folder)
{
    char record[RECORD_BYTES] = "";
    struct stat info;
    sleep(1);
    if (look(l->path, record, &info) && strcmp(record, l->record) == 0)
        return 0;
    return refuse(folder, record);
}

/* 1: the file that was opened has lost its name to the orderly end of a run. */
static int open_file(folder_lock *l, const char *folder, bool *has_lock, logger *log)
{
    struct stat opened, named;
    char record[RECORD_BYTES];
    if (l->descriptor >= 0)
        close(l->descriptor);
    l->descriptor = open(l->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (l->descriptor < 0)
        return fail(l->path, "open");
    *has_lock = flock(l->descriptor, LOCK_EX | LOCK_NB) == 0;
    if (!*has_lock && errno == EWOULDBLOCK)
        return look(l->path, record, &named) ? refuse(folder, record) : 1;
    if (!*has_lock)
        log_info(log, "%s: this file system has no locks (%s): a run here is known by the age of that file", l->path,
                 strerror(errno));
    if (fstat(l->descriptor, &opened) != 0 || !S_ISREG(opened.st_mode))
        return error_set(ERROR_FILE, "%s: not a regular file", l->path);
    return stat(l->path, &named) == 0 && named.st_ino == opened.st_ino && named.st_dev == opened.st_dev ? 0 : 1;
}

static int take(folder_lock *l, const char *folder, logger *log)
{
    bool has_lock = false;
    int status = 1;
    for (int i = 0; i < OPENINGS && status == 1; i++)
        status = open_file(l, folder, &has_lock, log);
    CHECK(status != 1, ERROR_FILE, "%s: runs come and go too fast", l->path);
    if (status == 0)
        status = check_left_record(l, folder, has_lock, log);
    if (status == 0)
        status = write_record(l);
    return status == 0 && !has_lock ? confirm(l, folder) : status;
}

static void *touch_on(void *argument)
{
    folder_lock *l = argument;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    pthread_mutex_lock(&l->mutex);
    while (!l->ends) {
        next.tv_sec += BEAT_SECONDS;
        while (!l->ends && pthread_cond_timedwait(&l->wake, &l->mutex, &next) == 0) {
        }
        pthread_mutex_unlock(&l->mutex);
        (void)futimens(l->descriptor, NULL);
        pthread_mutex_lock(&l->mutex);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

static int start_touching(folder_lock *l)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    int failed = thread_start(&l->toucher, touch_on, l);
    CHECK(failed == 0, ERROR_MEMORY, "%s: no thread to touch it: %s", l->path, strerror(failed));
    return 0;
}

static void give_up(folder_lock *l)
{
    if (l->descriptor >= 0)
        close(l->descriptor);
    free(l->path);
    free(l);
}

int folder_lock_take(folder_lock **lock, const char *folder, logger *log)
{
    *lock = NULL;
    folder_lock *l = calloc(1, sizeof *l);
    CHECK(l, ERROR_MEMORY, "%s: no memory to lock it", folder);
    l->descriptor = -1;
    if (asprintf(&l->path, "%s/teskd.lock", folder) < 0)
        l->path = NULL;
    int status = l->path ? make_record(l, log->host) : error_set(ERROR_MEMORY, "%s: no memory to lock it", folder);
    if (status == 0)
        status = take(l, folder, log);
    if (status == 0)
        status = start_touching(l);
    if (status < 0) {
        give_up(l);
        return status;
    }
    *lock = l;
    return 0;
}

void folder_lock_release(folder_lock **lock)
{
    folder_lock *l = *lock;
    char record[RECORD_BYTES];
    struct stat info;
    *lock = NULL;
    if (!l)
        return;
    pthread_mutex_lock(&l->mutex);
    l->ends = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->mutex);
    pthread_join(l->toucher, NULL);
    if (look(l->path, record, &info) && strcmp(record, l->record) == 0)
        unlink(l->path);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->mutex);
    give_up(l);
}
