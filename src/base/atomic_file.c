/* Owns a file that is being written. The order fsync(file), rename, fsync(folder) is the guarantee: the name never
 * points at data that is not on the disk yet. Invariant: a file under the other name is locked while it is written.
 * Any thread may call it. */
#include "base/atomic_file.h"

#include "base/error.h"

#include <dirent.h>
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

#define TEMP_MARK ".tmp."
static const double left_seconds = 3600;

struct atomic_file {
    char *path, *temp; /* temp: NULL when written in place */
    FILE *stream;
};

static char *temp_name(const char *path)
{
    char *name = NULL;
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != sizeof number) {
        error_set(ERROR_FILE, "%s: no random number for the name of a temporary file", path);
        return NULL;
    }
    if (asprintf(&name, "%s" TEMP_MARK "%016" PRIx64, path, number) < 0) {
        error_set(ERROR_MEMORY, "%s: no memory for the name of a temporary file", path);
        return NULL;
    }
    return name;
}

/* Where the group cannot be kept it is another one, which gets no more than everybody has. A file system that knows no
 * modes leaves the file to its owner alone. */
static void keep_rights(int descriptor, const struct stat *old)
{
    mode_t mode = old->st_mode & 0777;
    if (fchown(descriptor, old->st_uid, old->st_gid) != 0 && fchown(descriptor, (uid_t)-1, old->st_gid) != 0)
        mode &= ~(mode_t)070 | (mode & 07) << 3;
    (void)fchmod(descriptor, mode);
}

static int open_stream(atomic_file *f, int descriptor)
{
    f->stream = fdopen(descriptor, "w");
    if (f->stream)
        return 0;
    close(descriptor);
    return error_set(ERROR_MEMORY, "%s: no memory to write it", f->path);
}

/* `old` is what will be replaced, or NULL. */
static int open_temp(atomic_file *f, const struct stat *old)
{
    char *temp = temp_name(f->path);
    if (!temp)
        return ERROR_FILE;
    atomic_file_sweep(f->path, left_seconds);
    int descriptor = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, old ? 0600 : 0666);
    if (descriptor < 0) {
        free(temp);
        return error_set(ERROR_FILE, "%s: cannot be written: %s", f->path, strerror(errno));
    }
    f->temp = temp;
    (void)flock(descriptor, LOCK_EX | LOCK_NB); /* for atomic_file_sweep; it also looks at the age */
    if (old)
        keep_rights(descriptor, old);
    return open_stream(f, descriptor);
}

static int open_in_place(atomic_file *f)
{
    int descriptor = open(f->path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    CHECK(descriptor >= 0, ERROR_FILE, "%s: cannot be written: %s", f->path, strerror(errno));
    return open_stream(f, descriptor);
}

static int refuse_link(const char *path)
{
    char to[1024];
    ssize_t length = readlink(path, to, sizeof to);
    return error_set(ERROR_FILE, "%s: not written, since it is a link, to %.*s; name the file itself", path,
                     length > 0 ? (int)length : 0, to);
}

static int open_target(atomic_file *f)
{
    struct stat named, there;
    bool found = lstat(f->path, &named) == 0;
    CHECK(found || errno == ENOENT, ERROR_FILE, "%s: cannot be written: %s", f->path, strerror(errno));
    if (!found || S_ISREG(named.st_mode))
        return open_temp(f, found ? &named : NULL);
    if (S_ISLNK(named.st_mode) && (stat(f->path, &there) != 0 || S_ISREG(there.st_mode)))
        return refuse_link(f->path);
    mode_t mode = S_ISLNK(named.st_mode) ? there.st_mode : named.st_mode;
    CHECK(!S_ISDIR(mode), ERROR_FILE, "%s: not written, since it is a folder", f->path);
    CHECK(S_ISCHR(mode) || S_ISFIFO(mode), ERROR_FILE, "%s: not written, since it is a %s", f->path,
          S_ISBLK(mode) ? "disk" : "socket");
    return open_in_place(f);
}

int atomic_file_create(atomic_file **file, const char *path)
{
    atomic_file *f = calloc(1, sizeof *f);
    *file = f;
    CHECK(f, ERROR_MEMORY, "%s: no memory to write it", path);
    f->path = strdup(path);
    int status = f->path ? open_target(f) : error_set(ERROR_MEMORY, "%s: no memory to write it", path);
    if (status < 0)
        atomic_file_abandon(file);
    return status;
}

FILE *atomic_file_stream(const atomic_file *file)
{
    return file->stream;
}

static int write_error(const atomic_file *f)
{
    return error_set(ERROR_FILE, "%s: cannot write: %s", f->path, strerror(errno));
}

int atomic_file_check(const atomic_file *file)
{
    return ferror(file->stream) ? write_error(file) : 0;
}

int atomic_file_write(atomic_file *file, const void *bytes, size_t count)
{
    return count > 0 && fwrite(bytes, 1, count, file->stream) != count ? write_error(file) : 0;
}

/* Some network file systems cannot fsync and say EINVAL; the rename is then as durable as they make it. */
static int sync_descriptor(int descriptor, const char *path)
{
    CHECK(fsync(descriptor) == 0 || errno == EINVAL, ERROR_FILE, "%s: cannot make durable (fsync): %s", path,
          strerror(errno));
    return 0;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
}

static int sync_folder_of(const char *path)
{
    char *folder = folder_of(path);
    CHECK(folder, ERROR_MEMORY, "%s: no memory for the name of its folder", path);
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int status = descriptor < 0 ? error_set(ERROR_FILE, "%s: cannot open to make durable: %s", folder, strerror(errno))
                                : sync_descriptor(descriptor, folder);
    if (descriptor >= 0)
        close(descriptor);
    free(folder);
    return status;
}

static int finish_stream(atomic_file *f)
{
    errno = EIO; /* for a write that failed earlier */
    if (fflush(f->stream) != 0 || ferror(f->stream))
        return write_error(f);
    if (f->temp)
        TRY(sync_descriptor(fileno(f->stream), f->path));
    int closed = fclose(f->stream);
    f->stream = NULL;
    return closed == 0 ? 0 : write_error(f);
}

static int take_name(atomic_file *f)
{
    CHECK(rename(f->temp, f->path) == 0, ERROR_FILE, "%s: cannot rename to %s: %s", f->temp, f->path, strerror(errno));
    free(f->temp);
    f->temp = NULL;
    return sync_folder_of(f->path);
}

/* The old file gets a second name before the new one takes its first: there is always a whole one. */
static int keep_as(const char *path, const char *name)
{
    struct stat info;
    if (lstat(path, &info) != 0 && errno == ENOENT)
        return 0;
    char *temp = temp_name(name);
    if (!temp)
        return ERROR_FILE;
    bool linked = link(path, temp) == 0;
    bool kept = rename(linked ? temp : path, name) == 0;
    int reason = errno;
    unlink(temp); /* still there where both names are of one file already, and after a failure */
    free(temp);
    CHECK(kept, ERROR_FILE, "%s: cannot be kept as %s: %s", path, name, strerror(reason));
    return 0;
}

static int commit(atomic_file **file, const char *kept)
{
    int status = finish_stream(*file);
    if (status == 0 && (*file)->temp && kept)
        status = keep_as((*file)->path, kept);
    if (status == 0 && (*file)->temp)
        status = take_name(*file);
    atomic_file_abandon(file);
    return status;
}

int atomic_file_commit(atomic_file **file)
{
    return commit(file, NULL);
}

int atomic_file_commit_keeping(atomic_file **file, const char *name)
{
    return commit(file, name);
}

void atomic_file_abandon(atomic_file **file)
{
    atomic_file *f = *file;
    *file = NULL;
    if (!f)
        return;
    if (f->temp)
        unlink(f->temp);
    if (f->stream)
        fclose(f->stream);
    free(f->temp);
    free(f->path);
    free(f);
}

/* "NAME.tmp." and up to 16 hexadecimal digits. */
static bool is_temp_of(const char *entry, const char *name)
{
    size_t length = strlen(name), mark = strlen(TEMP_MARK);
    if (strncmp(entry, name, length) != 0 || strncmp(entry + length, TEMP_MARK, mark) != 0)
        return false;
    const char *digits = entry + length + mark;
    size_t count = strspn(digits, "0123456789abcdef");
    return count >= 1 && count <= 16 && !digits[count];
}

static bool remove_left(int folder, const char *entry, double seconds)
{
    struct stat info;
    if (fstatat(folder, entry, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid() ||
        difftime(time(NULL), info.st_mtime) < seconds)
        return false;
    /* For writing: network file systems make no exclusive lock of another descriptor. */
    int descriptor = openat(folder, entry, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    bool is_written = flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    bool removed = !is_written && unlinkat(folder, entry, 0) == 0;
    close(descriptor);
    return removed;
}

int atomic_file_sweep(const char *path, double seconds)
{
    const char *slash = strrchr(path, '/');
    char *folder = folder_of(path);
    DIR *entries = folder ? opendir(folder) : NULL;
    int removed = 0;
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        removed +=
            is_temp_of(entry->d_name, slash ? slash + 1 : path) && remove_left(dirfd(entries), entry->d_name, seconds);
    if (entries)
        closedir(entries);
    free(folder);
    return removed;
}

int make_folders(const char *path)
{
    char part[4096];
    CHECK(path[0] && strlen(path) < sizeof part, ERROR_FILE, "\"%.64s\": not the name of a folder", path);
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = '\0';
        CHECK(mkdir(part, 0777) == 0 || errno == EEXIST, ERROR_FILE, "%s: cannot make the folder: %s", part,
              strerror(errno));
        if (!slash)
            return 0;
        *slash = '/';
    }
}

bool is_same_file(const char *a, const char *b)
{
    struct stat of_a, of_b;
    return stat(a, &of_a) == 0 && stat(b, &of_b) == 0 && S_ISREG(of_a.st_mode) && of_a.st_dev == of_b.st_dev &&
           of_a.st_ino == of_b.st_ino;
}
