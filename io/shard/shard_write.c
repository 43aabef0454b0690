/* Owns a shard while it is written. HDF5 never writes the file itself, since its 1.10 cannot close one whose disk is
 * full: it lays out a file beside it that has everything but the images' bytes, and of this the parts around them are
 * copied. Invariant: the beginning, without which nothing is a shard, comes last, behind durable rest. One thread per
 * shard. */
#include "io/shard/shard_write.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/file/hdf5_report.h"
#include "io/shard/shard_file.h"
#include "io/shard/shard_hdf5.h"
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

/* So many links and attributes stand in a header, which is all that the reader takes. */
enum { COMPACT_MOST = 65535, COPY_BYTES = 1 << 16, LAYOUT_NAME = 64 };

/* A row of numbers or text that grows. */
typedef struct {
    char *bytes;
    size_t used, room;
} row;

struct shard_writer {
    char *path;
    shard_identity identity;
    atomic_file *file, *layout; /* the shard, and what HDF5 makes */
    uint64_t images_at, bytes;  /* where the images' bytes begin, and how many there are */
    int64_t images;
    row rows[SHARD_DATASET_COUNT]; /* BYTES stays empty */
};

static int row_add(shard_writer *w, shard_dataset which, const void *bytes, size_t count)
{
    row *r = &w->rows[which];
    if (r->used + count > r->room) {
        const size_t room = 2 * r->room + count + 1024;
        char *grown = realloc(r->bytes, room);
        CHECK(grown, ERROR_MEMORY, "%s: no memory for dataset '%s'", w->path, shard_dataset_name(which));
        r->bytes = grown;
        r->room = room;
    }
    memcpy(r->bytes + r->used, bytes, count);
    r->used += count;
    return 0;
}

static int row_add_end(shard_writer *w, shard_dataset text, shard_dataset begins)
{
    const uint64_t end = w->rows[text].used;
    return row_add(w, begins, &end, sizeof end);
}

/* A text, and where it ends; before the first one, where it begins. */
static int text_add(shard_writer *w, shard_dataset text, shard_dataset begins, const char *value)
{
    if (w->rows[begins].used == 0)
        TRY(row_add_end(w, text, begins));
    TRY(row_add(w, text, value, strlen(value)));
    return row_add_end(w, text, begins);
}

static hid_t compact_creation(hid_t class)
{
    hid_t creation = H5Pcreate(class);
    if (creation >= 0 && H5Pset_obj_track_times(creation, false) >= 0 &&
        H5Pset_attr_phase_change(creation, COMPACT_MOST, 0) >= 0 &&
        H5Pset_link_phase_change(creation, COMPACT_MOST, 0) >= 0)
        return creation;
    if (creation >= 0)
        H5Pclose(creation);
    return -1;
}

static hid_t dataset_creation(void)
{
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    if (creation >= 0 && H5Pset_obj_track_times(creation, false) >= 0 && H5Pset_layout(creation, H5D_CONTIGUOUS) >= 0 &&
        H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY) >= 0 && H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER) >= 0)
        return creation;
    if (creation >= 0)
        H5Pclose(creation);
    return -1;
}

static hid_t file_type(shard_dataset which)
{
    switch (which) {
#define TYPE_CASE(id, name, type, bytes)                                                                               \
    case SHARD_##id:                                                                                                   \
        return type;
        SHARD_DATASETS(TYPE_CASE)
#undef TYPE_CASE
    default:
        return -1;
    }
}

/* A dataset of `count` elements; `values` NULL: they are not written, and `offset` says where their place is. */
static herr_t put_dataset(hid_t h5, shard_dataset which, uint64_t count, const void *values, uint64_t *offset)
{
    const hsize_t dims[1] = {count};
    herr_t status = -1;
    hid_t creation = dataset_creation(), space = H5Screate_simple(1, dims, NULL), dataset = -1;
    if (creation >= 0 && space >= 0)
        dataset =
            H5Dcreate2(h5, shard_dataset_name(which), file_type(which), space, H5P_DEFAULT, creation, H5P_DEFAULT);
    if (dataset >= 0 && values)
        status = H5Dwrite(dataset, file_type(which), H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    else if (dataset >= 0)
        status = (*offset = H5Dget_offset(dataset)) == HADDR_UNDEF ? -1 : 0;
    if (dataset >= 0)
        H5Dclose(dataset);
    if (space >= 0)
        H5Sclose(space);
    if (creation >= 0)
        H5Pclose(creation);
    return status;
}

static herr_t put_attribute(hid_t h5, const char *name, hid_t type, const void *value)
{
    herr_t status = -1;
    hid_t space = H5Screate(H5S_SCALAR),
          attribute = space < 0 ? -1 : H5Acreate2(h5, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute >= 0) {
        status = H5Awrite(attribute, type, value);
        H5Aclose(attribute);
    }
    if (space >= 0)
        H5Sclose(space);
    return status;
}

static herr_t put_number(hid_t h5, const char *name, int64_t value)
{
    return put_attribute(h5, name, H5T_STD_I64LE, &value);
}

static herr_t put_text(hid_t h5, const char *name, const char *value)
{
    herr_t status = -1;
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && H5Tset_size(type, strlen(value) + 1) >= 0)
        status = put_attribute(h5, name, type, value);
    if (type >= 0)
        H5Tclose(type);
    return status;
}

static uint64_t index_checksum(const shard_writer *w)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return 0;
    XXH3_64bits_reset(state);
    for (shard_dataset which = SHARD_OFFSET; which <= SHARD_NAME_OFFSET; which++)
        XXH3_64bits_update(state, w->rows[which].bytes, w->rows[which].used);
    const uint64_t checksum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return checksum;
}

static herr_t put_attributes(hid_t h5, const shard_writer *w)
{
    const shard_identity *i = &w->identity;
    const uint64_t checksum = index_checksum(w);
    const bool written = put_text(h5, "format", SHARD_FORMAT) >= 0 && put_number(h5, "version", SHARD_VERSION) >= 0 &&
                         put_text(h5, "plan", i->plan) >= 0 && put_number(h5, "split", i->split) >= 0 &&
                         put_number(h5, "shard", i->shard) >= 0 && put_number(h5, "shards", i->shards) >= 0 &&
                         put_number(h5, "images", w->images) >= 0 && put_number(h5, "classes", i->classes) >= 0 &&
                         put_attribute(h5, "index_checksum", H5T_STD_U64LE, &checksum) >= 0 &&
                         put_number(h5, "complete", 1) >= 0;
    return written ? 0 : -1;
}

static herr_t put_all(hid_t h5, const shard_writer *w, uint64_t *images_at)
{
    if (put_dataset(h5, SHARD_BYTES, w->bytes > 0 ? w->bytes : 1, NULL, images_at) < 0)
        return -1;
    if (w->images == 0)
        return 0;
    for (shard_dataset which = SHARD_OFFSET; which < SHARD_DATASET_COUNT; which++) {
        const row *r = &w->rows[which];
        if (r->used > 0 && put_dataset(h5, which, r->used / shard_dataset_bytes(which), r->bytes, NULL) < 0)
            return -1;
    }
    return put_attributes(h5, w);
}

/* HDF5 wants a name; this one is of the file that is open, whatever it is called. */
static const char *layout_name(const shard_writer *w, char name[LAYOUT_NAME])
{
    snprintf(name, LAYOUT_NAME, "/proc/self/fd/%d", fileno(atomic_file_stream(w->layout)));
    return name;
}

/* Makes the layout anew. Without images it only tells where their bytes would begin. */
static int make_layout(const shard_writer *w, uint64_t *images_at)
{
    char name[LAYOUT_NAME];
    int status = 0;
    hdf5_begin();
    hid_t access = shard_hdf5_access(), creation = compact_creation(H5P_FILE_CREATE), h5 = -1;
    if (access >= 0 && creation >= 0)
        h5 = H5Fcreate(layout_name(w, name), H5F_ACC_TRUNC, creation, access);
    if (h5 < 0 || put_all(h5, w, images_at) < 0)
        status = h5_error(w->path, "lay out the shard");
    if (h5 >= 0 && H5Fclose(h5) < 0 && status == 0)
        status = h5_error(w->path, "lay out the shard");
    if (creation >= 0)
        H5Pclose(creation);
    if (access >= 0)
        H5Pclose(access);
    hdf5_end();
    return status;
}

static int begin_layout(shard_writer *w)
{
    char path[SHARD_PATH_BYTES];
    int length = snprintf(path, sizeof path, "%s.layout", w->path);
    CHECK(length < SHARD_PATH_BYTES, ERROR_FILE, "%s: the path is too long", w->path);
    TRY(atomic_file_create(&w->layout, path));
    TRY(make_layout(w, &w->images_at));
    CHECK(fseeko(atomic_file_stream(w->file), (off_t)w->images_at, SEEK_SET) == 0, ERROR_FILE, "%s: cannot write: %s",
          w->path, strerror(errno));
    return 0;
}

static int add_classes(shard_writer *w)
{
    for (int32_t i = 0; i < w->identity.classes; i++) {
        TRY(text_add(w, SHARD_CLASS_IDS, SHARD_CLASS_ID_OFFSET, w->identity.class_ids[i]));
        TRY(text_add(w, SHARD_CLASS_NAMES, SHARD_CLASS_NAME_OFFSET, w->identity.class_names[i]));
    }
    return 0;
}

int shard_writer_create(shard_writer **writer, const char *path, const shard_identity *identity)
{
    shard_writer *w = calloc(1, sizeof *w);
    *writer = w;
    CHECK(w, ERROR_MEMORY, "%s: no memory to write it", path);
    w->identity = *identity;
    w->path = strdup(path);
    int status = w->path ? atomic_file_create(&w->file, path) : error_set(ERROR_MEMORY, "%s: no memory", path);
    if (status == 0)
        status = begin_layout(w);
    if (status == 0)
        status = add_classes(w);
    if (status < 0)
        shard_writer_abandon(writer);
    return status;
}

int shard_writer_add(shard_writer *writer, const shard_image *image, const char *name, const void *bytes)
{
    const uint64_t offset = writer->bytes, checksum = XXH3_64bits(bytes, image->size);
    TRY(atomic_file_write(writer->file, bytes, image->size));
    TRY(row_add(writer, SHARD_OFFSET, &offset, sizeof offset));
    TRY(row_add(writer, SHARD_SIZE, &image->size, sizeof image->size));
    TRY(row_add(writer, SHARD_CHECKSUM, &checksum, sizeof checksum));
    TRY(row_add(writer, SHARD_LABEL, &image->label, sizeof image->label));
    TRY(row_add(writer, SHARD_WIDTH, &image->width, sizeof image->width));
    TRY(row_add(writer, SHARD_HEIGHT, &image->height, sizeof image->height));
    TRY(row_add(writer, SHARD_POSITION, &image->position, sizeof image->position));
    TRY(row_add(writer, SHARD_FLAGS, &image->flags, sizeof image->flags));
    TRY(text_add(writer, SHARD_NAMES, SHARD_NAME_OFFSET, name));
    writer->bytes += image->size;
    writer->images++;
    return 0;
}

int shard_writer_leave_out(shard_writer *writer, const char *name)
{
    return text_add(writer, SHARD_LEFT_OUT, SHARD_LEFT_OUT_OFFSET, name);
}

/* Copies a range of the layout to where the shard's stream stands. */
static int copy_range(const shard_writer *w, int layout, uint64_t from, uint64_t to)
{
    char block[COPY_BYTES];
    while (from < to) {
        const size_t count = to - from < sizeof block ? (size_t)(to - from) : sizeof block;
        TRY(shard_pread(layout, w->path, from, block, count));
        TRY(atomic_file_write(w->file, block, count));
        from += count;
    }
    return 0;
}

static int sync_rest(const shard_writer *w)
{
    FILE *stream = atomic_file_stream(w->file);
    CHECK(fflush(stream) == 0 && !ferror(stream) && (fsync(fileno(stream)) == 0 || errno == EINVAL), ERROR_FILE,
          "%s: cannot write: %s", w->path, strerror(errno));
    rewind(stream);
    return 0;
}

static int copy_layout(const shard_writer *w, int layout)
{
    struct stat info;
    CHECK(layout >= 0 && fstat(layout, &info) == 0, ERROR_FILE, "%s: cannot read its layout: %s", w->path,
          strerror(errno));
    TRY(copy_range(w, layout, w->images_at + w->bytes, (uint64_t)info.st_size));
    TRY(sync_rest(w));
    return copy_range(w, layout, 0, w->images_at);
}

static int finish(const shard_writer *w)
{
    char name[LAYOUT_NAME];
    uint64_t images_at;
    CHECK(w->images > 0, ERROR_DATA, "%s: not written, since none of its images can be read", w->path);
    TRY(make_layout(w, &images_at));
    CHECK(images_at == w->images_at, ERROR_INTERNAL,
          "%s: HDF5 puts the images at offset %" PRIu64 ", expected %" PRIu64, w->path, images_at, w->images_at);
    int layout = open(layout_name(w, name), O_RDONLY | O_CLOEXEC);
    int status = copy_layout(w, layout);
    if (layout >= 0)
        close(layout);
    return status;
}

int shard_writer_commit(shard_writer **writer)
{
    int status = finish(*writer);
    if (status == 0)
        status = atomic_file_commit(&(*writer)->file);
    shard_writer_abandon(writer);
    return status;
}

void shard_writer_abandon(shard_writer **writer)
{
    shard_writer *w = *writer;
    *writer = NULL;
    if (!w)
        return;
    atomic_file_abandon(&w->file);
    atomic_file_abandon(&w->layout);
    for (int i = 0; i < SHARD_DATASET_COUNT; i++)
        free(w->rows[i].bytes);
    free(w->path);
    free(w);
}
