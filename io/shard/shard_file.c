/* Owns an open shard. Invariant: all bytes but the images' have been held against the manifest's checksum before HDF5
 * sees them, and every image lies within the images' bytes. Opening: HDF5 in turn; reading: any thread. */
#include "io/shard/shard_file.h"

#include "base/error.h"
#include "io/shard/shard_layout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { BLOCK_BYTES = 1 << 18 };

int shard_pread(int descriptor, const char *path, uint64_t offset, void *bytes, size_t count)
{
    for (char *to = bytes; count > 0;) {
        ssize_t got = pread(descriptor, to, count, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        CHECK(got >= 0, ERROR_FILE, "%s: cannot read at offset %" PRIu64 ": %s", path, offset, strerror(errno));
        CHECK(got > 0, ERROR_DATA, "%s: ends at offset %" PRIu64 ", %zu bytes too early", path, offset, count);
        to += got;
        offset += (uint64_t)got;
        count -= (size_t)got;
    }
    return 0;
}

static int add_range(const shard_file *f, XXH3_state_t *state, uint64_t from, uint64_t to)
{
    char *block = malloc(BLOCK_BYTES);
    int status = block ? 0 : error_set(ERROR_MEMORY, "%s: no memory to read it", f->path);
    while (status == 0 && from < to) {
        const size_t count = to - from < BLOCK_BYTES ? (size_t)(to - from) : BLOCK_BYTES;
        status = shard_pread(f->descriptor, f->path, from, block, count);
        if (status == 0)
            XXH3_64bits_update(state, block, count);
        from += count;
    }
    free(block);
    return status;
}

/* Of all bytes but the images'. */
static int rest_checksum(const shard_file *f, uint64_t *checksum)
{
    const shard_record *r = &f->record;
    XXH3_state_t *state = XXH3_createState();
    CHECK(state, ERROR_MEMORY, "%s: no memory for its checksum", f->path);
    XXH3_64bits_reset(state);
    int status = add_range(f, state, 0, r->offset);
    if (status == 0)
        status = add_range(f, state, r->offset + r->bytes, r->file_bytes);
    *checksum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return status;
}

static int check_rest(const shard_file *f)
{
    uint64_t checksum;
    TRY(rest_checksum(f, &checksum));
    CHECK(checksum == f->record.checksum, ERROR_DATA,
          "%s: the shard is damaged, or of another packing: the checksum of what surrounds its images is %016" PRIx64
          ", the manifest says %016" PRIx64,
          f->path, checksum, f->record.checksum);
    return 0;
}

static int open_descriptor(shard_file *f, uint64_t *bytes)
{
    struct stat info;
    f->descriptor = open(f->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(f->descriptor >= 0 && fstat(f->descriptor, &info) == 0, ERROR_FILE, "%s: cannot open the shard: %s", f->path,
          strerror(errno));
    CHECK(S_ISREG(info.st_mode), ERROR_FILE, "%s: not a regular file", f->path);
    *bytes = (uint64_t)info.st_size;
    f->changed = info.st_mtim;
    return 0;
}

/* Is it the shard that was asked for? */
static int check_identity(const shard_file *f, const manifest *m, const shard_layout *l, int split, int32_t shard)
{
    CHECK(strcmp(l->plan, m->plan) == 0 && l->shards == m->set.shards[split], ERROR_DATA,
          "%s: of another packing than the other shards", f->path);
    CHECK(l->split == split && l->shard == shard, ERROR_DATA,
          "%s: holds shard %" PRId64 " of split '%s', so it has been renamed", f->path, l->shard,
          shard_split_name((int)l->split));
    return 0;
}

static int check_record(const shard_file *f, const shard_layout *l)
{
    const shard_place *bytes = &l->places[SHARD_BYTES];
    CHECK(l->images == f->record.images && bytes->offset == f->record.offset &&
              (uint64_t)bytes->count == f->record.bytes,
          ERROR_DATA,
          "%s: %" PRId64 " images in %" PRId64 " bytes at offset %" PRIu64 ", but the manifest says %" PRId64
          " in %" PRIu64 " at %" PRIu64,
          f->path, l->images, bytes->count, bytes->offset, f->record.images, f->record.bytes, f->record.offset);
    return 0;
}

/* The arrays that say what each image is. */
typedef struct {
    void *arrays[SHARD_DATASET_COUNT];
} index_arrays;

static void index_free(index_arrays *index)
{
    for (int i = 0; i < SHARD_DATASET_COUNT; i++)
        free(index->arrays[i]);
}

static int index_read(const shard_file *f, const shard_layout *l, index_arrays *index)
{
    for (shard_dataset which = SHARD_OFFSET; which <= SHARD_NAME_OFFSET; which++) {
        const size_t bytes = (size_t)l->places[which].count * shard_dataset_bytes(which);
        index->arrays[which] = malloc(bytes);
        CHECK(index->arrays[which], ERROR_MEMORY, "%s: no memory for dataset '%s'", f->path, shard_dataset_name(which));
        TRY(shard_pread(f->descriptor, f->path, l->places[which].offset, index->arrays[which], bytes));
    }
    return 0;
}

static int index_check(const shard_file *f, const shard_layout *l, const index_arrays *index)
{
    XXH3_state_t *state = XXH3_createState();
    CHECK(state, ERROR_MEMORY, "%s: no memory for its checksum", f->path);
    XXH3_64bits_reset(state);
    for (shard_dataset which = SHARD_OFFSET; which <= SHARD_NAME_OFFSET; which++)
        XXH3_64bits_update(state, index->arrays[which], (size_t)l->places[which].count * shard_dataset_bytes(which));
    const uint64_t checksum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    CHECK(checksum == l->index_checksum, ERROR_DATA,
          "%s: the list of its images is damaged: its checksum is %016" PRIx64 ", expected %016" PRIx64, f->path,
          checksum, l->index_checksum);
    return 0;
}

static shard_image image_at(const index_arrays *index, int64_t i, const shard_record *r, int32_t shard)
{
    return (shard_image){
        .offset = r->offset + ((const uint64_t *)index->arrays[SHARD_OFFSET])[i],
        .checksum = ((const uint64_t *)index->arrays[SHARD_CHECKSUM])[i],
        .size = ((const uint32_t *)index->arrays[SHARD_SIZE])[i],
        .shard = shard,
        .label = ((const int32_t *)index->arrays[SHARD_LABEL])[i],
        .height = ((const int32_t *)index->arrays[SHARD_HEIGHT])[i],
        .width = ((const int32_t *)index->arrays[SHARD_WIDTH])[i],
        .position = ((const uint64_t *)index->arrays[SHARD_POSITION])[i],
        .flags = ((const uint32_t *)index->arrays[SHARD_FLAGS])[i],
    };
}

/* Images lie one after the other, so that each byte of the file is under one checksum. */
static int check_image(const shard_file *f, int64_t i, uint64_t begin, int32_t classes)
{
    const shard_image *image = &f->images[i];
    CHECK(image->offset == begin && image->size > 0 && image->size <= f->record.offset + f->record.bytes - begin,
          ERROR_DATA,
          "%s: image %" PRId64 " of %" PRIu32 " bytes at offset %" PRIu64 ", expected it at %" PRIu64
          " and within the images' bytes",
          f->path, i, image->size, image->offset, begin);
    CHECK(image->label >= 0 && image->label < classes, ERROR_DATA,
          "%s: image %" PRId64 " has label %" PRId32 ", labels are 0 to %" PRId32, f->path, i, image->label,
          classes - 1);
    CHECK(image->height > 0 && image->width > 0, ERROR_DATA,
          "%s: image %" PRId64 " has %" PRId32 " x %" PRId32 " pixels", f->path, i, image->width, image->height);
    return 0;
}

static int take_images(shard_file *f, const index_arrays *index, int32_t shard, int32_t classes)
{
    uint64_t begin = f->record.offset;
    f->images = malloc((size_t)f->record.images * sizeof *f->images);
    CHECK(f->images, ERROR_MEMORY, "%s: no memory for its %" PRId64 " images", f->path, f->record.images);
    for (int64_t i = 0; i < f->record.images; i++) {
        f->images[i] = image_at(index, i, &f->record, shard);
        TRY(check_image(f, i, begin, classes));
        begin += f->images[i].size;
    }
    CHECK(begin == f->record.offset + f->record.bytes, ERROR_DATA,
          "%s: the images' bytes end at offset %" PRIu64 ", but the last image at %" PRIu64, f->path,
          f->record.offset + f->record.bytes, begin);
    return 0;
}

static shard_texts texts_of(const shard_layout *l, shard_dataset text, shard_dataset begins)
{
    const int64_t count = l->places[begins].count;
    return (shard_texts){.begins_at = l->places[begins].offset,
                         .text_at = l->places[text].offset,
                         .count = count > 0 ? count - 1 : 0,
                         .text_bytes = (uint64_t)l->places[text].count};
}

static int take_layout(shard_file *f, const manifest *m, const shard_layout *l, int32_t shard)
{
    index_arrays index = {{NULL}};
    int status = index_read(f, l, &index);
    if (status == 0)
        status = index_check(f, l, &index);
    if (status == 0)
        status = take_images(f, &index, shard, m->set.classes);
    index_free(&index);
    f->index_checksum = l->index_checksum;
    f->names = texts_of(l, SHARD_NAMES, SHARD_NAME_OFFSET);
    f->left_out = texts_of(l, SHARD_LEFT_OUT, SHARD_LEFT_OUT_OFFSET);
    return status;
}

static int open_listed(shard_file *f, const manifest *m, int split, int32_t shard)
{
    uint64_t bytes;
    shard_layout layout;
    f->record = m->records[split][shard];
    TRY(open_descriptor(f, &bytes));
    CHECK(bytes == f->record.file_bytes, ERROR_DATA,
          "%s: the shard has %" PRIu64 " bytes, the manifest says %" PRIu64 "; copy or pack it again", f->path, bytes,
          f->record.file_bytes);
    TRY(check_rest(f));
    TRY(shard_layout_read(&layout, f->path, bytes));
    TRY(check_identity(f, m, &layout, split, shard));
    TRY(check_record(f, &layout));
    return take_layout(f, m, &layout, shard);
}

static int open_unlisted(shard_file *f, const manifest *m, int split, int32_t shard)
{
    shard_layout layout;
    TRY(open_descriptor(f, &f->record.file_bytes));
    TRY(shard_layout_read(&layout, f->path, f->record.file_bytes));
    TRY(check_identity(f, m, &layout, split, shard));
    f->record.images = layout.images;
    f->record.offset = layout.places[SHARD_BYTES].offset;
    f->record.bytes = (uint64_t)layout.places[SHARD_BYTES].count;
    TRY(rest_checksum(f, &f->record.checksum));
    return take_layout(f, m, &layout, shard);
}

static int begin(shard_file *f, const char *folder, int split, int32_t shard)
{
    char path[SHARD_PATH_BYTES], name[SHARD_FILE_BYTES];
    memset(f, 0, sizeof *f);
    f->descriptor = -1;
    TRY(shard_path_join(path, folder, shard_file_name(split, shard, name)));
    f->path = strdup(path);
    CHECK(f->path, ERROR_MEMORY, "%s: no memory to read it", path);
    return 0;
}

int shard_file_open(shard_file *file, const manifest *m, const char *folder, int split, int32_t shard)
{
    int status = begin(file, folder, split, shard);
    if (status == 0)
        status = open_listed(file, m, split, shard);
    if (status < 0)
        shard_file_close(file);
    return status;
}

int shard_file_open_unlisted(shard_file *file, const manifest *m, const char *folder, int split, int32_t shard)
{
    int status = begin(file, folder, split, shard);
    if (status == 0)
        status = open_unlisted(file, m, split, shard);
    if (status < 0)
        shard_file_close(file);
    return status;
}

void shard_file_close(shard_file *file)
{
    if (file->path && file->descriptor >= 0)
        close(file->descriptor);
    free(file->path);
    free(file->images);
    memset(file, 0, sizeof *file);
}

static bool has_changed(const shard_file *f)
{
    struct stat info;
    return fstat(f->descriptor, &info) == 0 &&
           ((uint64_t)info.st_size != f->record.file_bytes || info.st_mtim.tv_sec != f->changed.tv_sec ||
            info.st_mtim.tv_nsec != f->changed.tv_nsec);
}

/* Puts in front which image the message is of. */
static int name_image(const shard_file *f, int64_t index, int code)
{
    char name[SHARD_NAME_BYTES];
    error_copy kept = error_save();
    if (shard_file_text(f, &f->names, index, name, sizeof name) < 0)
        snprintf(name, sizeof name, "of an unreadable name");
    error_restore(&kept);
    error_suffix(code, " (image %" PRId64 " of the shard, '%.300s')", index, name);
    return has_changed(f) ? error_suffix(code, "; the file has been changed since it was opened") : code;
}

int shard_file_read(const shard_file *file, int64_t index, void *bytes)
{
    const shard_image *image = &file->images[index];
    int status = shard_pread(file->descriptor, file->path, image->offset, bytes, image->size);
    if (status < 0)
        return name_image(file, index, status);
    const uint64_t checksum = XXH3_64bits(bytes, image->size);
    if (checksum == image->checksum)
        return 0;
    error_set(ERROR_DATA,
              "%s: the %" PRIu32 " bytes at offset %" PRIu64 " are damaged: their checksum is %016" PRIx64
              ", expected %016" PRIx64,
              file->path, image->size, image->offset, checksum, image->checksum);
    return name_image(file, index, ERROR_DATA);
}

int shard_file_text(const shard_file *file, const shard_texts *texts, int64_t index, char *text, size_t bytes)
{
    uint64_t ends[2];
    CHECK(index >= 0 && index < texts->count, ERROR_INTERNAL, "%s: text %" PRId64 " of %" PRId64, file->path, index,
          texts->count);
    TRY(shard_pread(file->descriptor, file->path, texts->begins_at + (uint64_t)index * sizeof ends[0], ends,
                    sizeof ends));
    CHECK(ends[0] <= ends[1] && ends[1] <= texts->text_bytes, ERROR_DATA,
          "%s: name %" PRId64 " goes from byte %" PRIu64 " to %" PRIu64 " of %" PRIu64, file->path, index, ends[0],
          ends[1], texts->text_bytes);
    const size_t length = ends[1] - ends[0] < bytes ? (size_t)(ends[1] - ends[0]) : bytes - 1;
    text[length] = '\0';
    return shard_pread(file->descriptor, file->path, texts->text_at + ends[0], text, length);
}
