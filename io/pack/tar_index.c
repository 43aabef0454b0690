/* Owns the reading of tar archives with libarchive, which looks at the headers and skips what is between them.
 * Invariant: a member's bytes lie within the archive. One thread per archive. */
#include "io/pack/tar_index.h"

#include "base/error.h"
#include "io/file/file_kind.h"
#include "io/shard/shard_file.h"

#include <archive.h>
#include <archive_entry.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Blocks are small, since of each only a header is used before the next is skipped to. */
enum {
    TAR_BLOCK = 512,
    READ_BYTES = 8 * TAR_BLOCK,
    TYPE_AT = 156,
    SIZE_AT = 124,
    SIZE_DIGITS = 12,
    EXTRACT_MOST = 1 << 26
};

typedef struct {
    const tar_range *archive;
    uint64_t place; /* of the next read, in the file */
    uint8_t block[READ_BYTES];
} reader;

static la_ssize_t read_block(struct archive *a, void *context, const void **block)
{
    reader *r = context;
    const uint64_t left = r->archive->end - r->place;
    ssize_t got;
    do
        got = pread(r->archive->descriptor, r->block, left < READ_BYTES ? (size_t)left : READ_BYTES, (off_t)r->place);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        archive_set_error(a, errno, "%s", strerror(errno));
    else
        r->place += (uint64_t)got;
    *block = r->block;
    return got < 0 ? ARCHIVE_FATAL : got;
}

static la_int64_t skip_bytes(struct archive *a, void *context, la_int64_t request)
{
    reader *r = context;
    const uint64_t left = r->archive->end - r->place, wanted = request > 0 ? (uint64_t)request : 0;
    const uint64_t skipped = wanted < left ? wanted : left;
    (void)a;
    r->place += skipped;
    return (la_int64_t)skipped;
}

static int archive_failure(const tar_range *t, struct archive *a)
{
    const char *reason = archive_error_string(a);
    const int64_t place = archive_read_header_position(a); /* senseless before the first header */
    const uint64_t at = place > 0 && (uint64_t)place <= t->end - t->begin ? (uint64_t)place : 0;
    return error_set(ERROR_DATA, "%s: offset %" PRIu64 ": not a tar archive, or a damaged one: %s", t->path,
                     t->begin + at, reason ? reason : "no reason is known");
}

/* The size in a header of the archive's own use: octal digits. */
static uint64_t header_size(const uint8_t *header)
{
    uint64_t size = 0;
    for (int i = 0; i < SIZE_DIGITS; i++) {
        const uint8_t digit = header[SIZE_AT + i];
        if (digit >= '0' && digit <= '7')
            size = size * 8 + (uint64_t)(digit - '0');
    }
    return size;
}

/* A member may have several headers: of long names and other attributes, each with data of its own, and the last one,
 * behind which its bytes lie. libarchive tells where the first one is. */
static int find_data(const tar_range *t, uint64_t header_at, uint64_t *data)
{
    uint8_t header[TAR_BLOCK];
    while (header_at + TAR_BLOCK <= t->end) {
        TRY(shard_pread(t->descriptor, t->path, header_at, header, sizeof header));
        header_at += TAR_BLOCK;
        if (!strchr("xgLKX", header[TYPE_AT]) || header[TYPE_AT] == '\0') {
            *data = header_at;
            return 0;
        }
        header_at += (header_size(header) + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
    }
    return error_set(ERROR_DATA, "%s: ends at offset %" PRIu64 ", in the headers of a member", t->path, t->end);
}

static int take_member(const tar_range *t, struct archive *a, struct archive_entry *entry,
                       int (*take)(void *, const tar_member *), void *context)
{
    const char *own = archive_entry_pathname(entry), *name = own ? own : archive_entry_pathname_utf8(entry);
    const int64_t size = archive_entry_size(entry);
    if (!name || archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry))
        return 0;
    tar_member member = {.name = strncmp(name, "./", 2) == 0 ? name + 2 : name, .size = (uint64_t)size};
    CHECK(archive_entry_sparse_count(entry) == 0, ERROR_DATA, "%s: %s is stored with holes, which is not read", t->path,
          name);
    TRY(find_data(t, t->begin + (uint64_t)archive_read_header_position(a), &member.offset));
    CHECK(size >= 0 && member.offset <= t->end && member.size <= t->end - member.offset, ERROR_DATA,
          "%s: ends at offset %" PRIu64 ", but %s, of %" PRId64 " bytes, begins at %" PRIu64
          ": it is not whole; copy or download it again",
          t->path, t->end, name, size, member.offset);
    return take(context, &member);
}

static int list_members(const tar_range *t, struct archive *a, int (*take)(void *, const tar_member *), void *context)
{
    struct archive_entry *entry;
    for (;;) {
        const int found = archive_read_next_header(a, &entry);
        if (found == ARCHIVE_EOF)
            return 0;
        if (found != ARCHIVE_OK && found != ARCHIVE_WARN)
            return archive_failure(t, a);
        TRY(take_member(t, a, entry, take, context));
    }
}

static int open_plain(const tar_range *t, struct archive *a, reader *r)
{
    if (archive_read_support_format_tar(a) != ARCHIVE_OK ||
        archive_read_open2(a, r, NULL, read_block, skip_bytes, NULL) != ARCHIVE_OK)
        return archive_failure(t, a);
    return 0;
}

int tar_index(const tar_range *archive, int (*take)(void *context, const tar_member *member), void *context)
{
    reader *r = malloc(sizeof *r);
    struct archive *a = archive_read_new();
    int status = r && a ? 0 : error_set(ERROR_MEMORY, "%s: no memory to read it", archive->path);
    if (status == 0) {
        *r = (reader){.archive = archive, .place = archive->begin};
        status = open_plain(archive, a, r);
    }
    if (status == 0)
        status = list_members(archive, a, take, context);
    archive_read_free(a);
    free(r);
    return status;
}

static bool ends_with(const char *text, const char *ending)
{
    const size_t length = strlen(text), of_ending = strlen(ending);
    return length >= of_ending && strcmp(text + length - of_ending, ending) == 0;
}

static int extract_open(const char *path, struct archive *a, uint8_t **bytes, size_t *size)
{
    const size_t step = 1 << 16;
    for (;;) {
        CHECK(*size < EXTRACT_MOST, ERROR_DATA, "%s: a member is larger than %d bytes", path, EXTRACT_MOST);
        uint8_t *grown = realloc(*bytes, *size + step + 1);
        CHECK(grown, ERROR_MEMORY, "%s: no memory to read it", path);
        *bytes = grown;
        const la_ssize_t got = archive_read_data(a, grown + *size, step);
        CHECK(got >= 0, ERROR_DATA, "%s: cannot be unpacked: %s", path, archive_error_string(a));
        *size += (size_t)got;
        grown[*size] = '\0';
        if (got == 0)
            return 0;
    }
}

static int find_and_extract(const char *path, struct archive *a, const char *ending, uint8_t **bytes, size_t *size)
{
    struct archive_entry *entry;
    if (archive_read_support_format_tar(a) != ARCHIVE_OK || archive_read_support_filter_gzip(a) < ARCHIVE_WARN ||
        archive_read_open_filename(a, path, 1 << 16) != ARCHIVE_OK)
        return error_set(ERROR_FILE, "%s: cannot be opened: %s", path, archive_error_string(a));
    for (;;) {
        const int found = archive_read_next_header(a, &entry);
        if (found == ARCHIVE_EOF)
            return 0;
        CHECK(found == ARCHIVE_OK || found == ARCHIVE_WARN, ERROR_DATA, "%s: cannot be unpacked: %s", path,
              archive_error_string(a));
        const char *name = archive_entry_pathname(entry);
        if (name && archive_entry_filetype(entry) == AE_IFREG && ends_with(name, ending))
            return extract_open(path, a, bytes, size);
    }
}

int tar_extract(const char *path, const char *ending, uint8_t **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    struct archive *a = archive_read_new();
    CHECK(a, ERROR_MEMORY, "%s: no memory to read it", path);
    int status = find_and_extract(path, a, ending, bytes, size);
    archive_read_free(a);
    if (status < 0) {
        free(*bytes);
        *bytes = NULL;
    }
    return status;
}
