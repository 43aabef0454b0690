/* The seal: 16 bytes behind the HDF5 file (which ignores them) with a checksum of all that is before. It is checked
 * before HDF5 looks at the file, since HDF5 1.10 notices damaged metadata but leaks and complains at the program's end.
 * A file without a seal, rewritten by another tool, is read all the same. Owns no state. */
#include "tensor_file_private.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAGIC_BYTES = 8, CHUNK = 1 << 20 };
static const char magic[MAGIC_BYTES] = {'T', 'E', 'S', 'K', 'D', 'S', 'U', 'M'};

void seal_make(const void *bytes, size_t count, uint8_t seal[SEAL_BYTES])
{
    const uint64_t checksum = XXH3_64bits(bytes, count);
    memcpy(seal, magic, MAGIC_BYTES);
    memcpy(seal + MAGIC_BYTES, &checksum, sizeof checksum);
}

/* Checksum of the first `count` bytes. */
static int hash_file(const char *path, FILE *file, size_t count, uint64_t *checksum)
{
    XXH3_state_t *state = XXH3_createState();
    uint8_t *chunk = malloc(CHUNK);
    int status = state && chunk ? 0 : error_set(ERROR_MEMORY, "%s: no memory to read it", path);
    if (status == 0)
        XXH3_64bits_reset(state);
    while (status == 0 && count > 0) {
        const size_t part = count < CHUNK ? count : CHUNK;
        if (fread(chunk, 1, part, file) != part)
            status = error_set(ERROR_FILE, "%s: cannot read: %s", path,
                               ferror(file) ? strerror(errno) : "it became shorter");
        else
            XXH3_64bits_update(state, chunk, part);
        count -= part;
    }
    if (status == 0)
        *checksum = XXH3_64bits_digest(state);
    free(chunk);
    XXH3_freeState(state);
    return status;
}

static int check_open_file(const char *path, FILE *file)
{
    uint8_t seal[SEAL_BYTES];
    uint64_t expected, found = 0;
    if (fseek(file, -SEAL_BYTES, SEEK_END) != 0 || fread(seal, 1, SEAL_BYTES, file) != SEAL_BYTES ||
        memcmp(seal, magic, MAGIC_BYTES) != 0)
        return 0; /* no seal; HDF5 says what the file is */
    const long end = ftell(file);
    CHECK(end >= SEAL_BYTES && fseek(file, 0, SEEK_SET) == 0, ERROR_FILE, "%s: cannot read: %s", path, strerror(errno));
    TRY(hash_file(path, file, (size_t)(end - SEAL_BYTES), &found));
    memcpy(&expected, seal + MAGIC_BYTES, sizeof expected);
    CHECK(found == expected, ERROR_FILE, "%s: the file is damaged: its checksum is %016llx, expected %016llx", path,
          (unsigned long long)found, (unsigned long long)expected);
    return 0;
}

int seal_check(const char *path)
{
    FILE *file = fopen(path, "rb");
    CHECK(file, ERROR_FILE, "%s: cannot open: %s", path, strerror(errno));
    int status = check_open_file(path, file);
    fclose(file);
    return status;
}
