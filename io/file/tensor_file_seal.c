/* The seal: a first block before the HDF5 file that says what the file is, how long, and the checksum of the whole. To
 * HDF5 it is a user block, which it skips. It is read and held against the file's bytes before HDF5 sees any of them:
 * HDF5 1.10 crashes or hangs on some damaged files. A file is therefore read whole into memory, and HDF5 is given these
 * bytes: what was checked is what is opened, and neither needs a lock. Owns no state. */
#include "tensor_file_private.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* Of the first block: the format's name at 0, then the length of the file and its checksum, little-endian; zeros. */
enum { NAME_BYTES = 16, LENGTH_AT = 16, SUM_AT = 24, SUM_END = 32 };
_Static_assert(sizeof TENSOR_FILE_FORMAT - 1 == NAME_BYTES, "the block begins with the format's name");

static const char hdf5_word[] = "\x89HDF\r\n\x1a\n";
enum { HDF5_WORD_BYTES = sizeof hdf5_word - 1 };

/* Of all bytes but the checksum itself. */
static int whole_sum(const char *path, const uint8_t block[SEAL_BYTES], const void *rest, size_t rest_bytes,
                     uint64_t *sum)
{
    XXH3_state_t *state = XXH3_createState();
    CHECK(state, ERROR_MEMORY, "%s: no memory for its checksum", path);
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, block, SUM_AT);
    XXH3_64bits_update(state, block + SUM_END, SEAL_BYTES - SUM_END);
    XXH3_64bits_update(state, rest, rest_bytes);
    *sum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return 0;
}

int seal_make(const char *path, const void *rest, size_t rest_bytes, uint8_t block[SEAL_BYTES])
{
    const uint64_t length = SEAL_BYTES + (uint64_t)rest_bytes;
    uint64_t sum = 0;
    memset(block, 0, SEAL_BYTES);
    memcpy(block, TENSOR_FILE_FORMAT, NAME_BYTES);
    memcpy(block + LENGTH_AT, &length, sizeof length);
    TRY(whole_sum(path, block, rest, rest_bytes, &sum));
    memcpy(block + SUM_AT, &sum, sizeof sum);
    return 0;
}

static int check_sum(const char *path, const uint8_t *bytes, size_t count)
{
    uint64_t found = 0, expected;
    TRY(whole_sum(path, bytes, bytes + SEAL_BYTES, count - SEAL_BYTES, &found));
    memcpy(&expected, bytes + SUM_AT, sizeof expected);
    CHECK(found == expected, ERROR_DAMAGED, "%s: the file is damaged: its checksum is %016llx, expected %016llx", path,
          (unsigned long long)found, (unsigned long long)expected);
    return 0;
}

/* The beginning of a file tells whether it is worth to be read: a large file of another program is not. */
enum { HEAD_BYTES = SEAL_BYTES + HDF5_WORD_BYTES };
typedef struct {
    size_t file_bytes, bytes;
    uint8_t first[HEAD_BYTES];
} file_head;

static bool has_word(const file_head *head, size_t at, const char *word, size_t word_bytes)
{
    return head->bytes >= at + word_bytes && memcmp(head->first + at, word, word_bytes) == 0;
}

static int check_length(const char *path, const file_head *head)
{
    uint64_t length;
    CHECK(head->file_bytes >= SEAL_BYTES, ERROR_DAMAGED,
          "%s: the file is damaged: it has %zu bytes, expected more than %d", path, head->file_bytes, SEAL_BYTES);
    memcpy(&length, head->first + LENGTH_AT, sizeof length);
    CHECK(head->file_bytes == length, ERROR_DAMAGED, "%s: the file is damaged: it has %zu bytes, expected %llu", path,
          head->file_bytes, (unsigned long long)length);
    return 0;
}

static int check_head(const char *path, const file_head *head)
{
    CHECK(head->file_bytes > 0, ERROR_DAMAGED, "%s: the file is damaged: it is empty", path);
    if (has_word(head, 0, TENSOR_FILE_FORMAT, NAME_BYTES))
        return check_length(path, head);
    CHECK(!has_word(head, SEAL_BYTES, hdf5_word, HDF5_WORD_BYTES), ERROR_DAMAGED,
          "%s: the file is damaged: its first %d bytes do not begin with '%s'", path, SEAL_BYTES, TENSOR_FILE_FORMAT);
    CHECK(
        !has_word(head, 0, hdf5_word, HDF5_WORD_BYTES), ERROR_FILE,
        "%s: not a %s: an HDF5 file without the first block by which teskd knows its own, so another program or an "
        "earlier version wrote it, or it is damaged; weights of other programs come by teskd import, from safetensors",
        path, TENSOR_FILE_FORMAT);
    return error_set(ERROR_DAMAGED, "%s: not a %s: it begins with other bytes", path, TENSOR_FILE_FORMAT);
}

static int read_part(const char *path, int file, size_t from, uint8_t *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        ssize_t part = pread(file, bytes + done, count - done, (off_t)(from + done));
        if (part < 0 && errno == EINTR)
            continue;
        CHECK(part > 0, ERROR_DAMAGED, "%s: cannot read: %s", path, part < 0 ? strerror(errno) : "it became shorter");
        done += (size_t)part;
    }
    return 0;
}

static int read_head(const char *path, int file, file_head *head)
{
    struct stat status;
    CHECK(fstat(file, &status) == 0, ERROR_FILE, "%s: cannot read: %s", path, strerror(errno));
    CHECK(S_ISREG(status.st_mode), ERROR_FILE, "%s: not a %s: it is no regular file", path, TENSOR_FILE_FORMAT);
    head->file_bytes = (size_t)status.st_size;
    head->bytes = head->file_bytes < HEAD_BYTES ? head->file_bytes : HEAD_BYTES;
    return read_part(path, file, 0, head->first, head->bytes);
}

static int read_open(const char *path, int file, uint8_t **bytes, size_t *count)
{
    file_head head = {0};
    TRY(read_head(path, file, &head));
    TRY(check_head(path, &head));
    *count = head.file_bytes;
    *bytes = malloc(*count + 1);
    CHECK(*bytes, ERROR_MEMORY, "%s: no memory for its %zu bytes", path, *count);
    TRY(read_part(path, file, 0, *bytes, *count));
    return check_sum(path, *bytes, *count);
}

int seal_read(const char *path, uint8_t **bytes, size_t *count)
{
    *bytes = NULL;
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe nobody writes is not waited for */
    CHECK(file >= 0, ERROR_FILE, "%s: cannot open: %s", path, strerror(errno));
    int status = read_open(path, file, bytes, count);
    close(file);
    if (status == 0)
        return 0;
    free(*bytes);
    *bytes = NULL;
    return status;
}
