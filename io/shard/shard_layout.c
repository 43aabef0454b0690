/* Owns the questions to HDF5. Invariant: no offset or count leaves here that does not fit the file. HDF5 in turn. */
#include "io/shard/shard_layout.h"

#include "base/error.h"
#include "io/file/hdf5_report.h"
#include "io/file/hdf5_value.h"
#include "io/shard/shard_hdf5.h"

#include <inttypes.h>
#include <string.h>

typedef struct {
    const char *path;
    hid_t h5;
    uint64_t file_bytes;
} asked;

static const struct {
    const char *name;
    size_t bytes;
} datasets[] = {
#define ROW(id, name, type, bytes) {name, bytes},
    SHARD_DATASETS(ROW)
#undef ROW
};

const char *shard_dataset_name(shard_dataset dataset)
{
    return datasets[dataset].name;
}

size_t shard_dataset_bytes(shard_dataset dataset)
{
    return datasets[dataset].bytes;
}

static int read_attribute(const asked *a, const char *name, const hdf5_expected *expected, hid_t type, void *value)
{
    htri_t has = H5Aexists(a->h5, name);
    if (has < 0)
        return h5_error(a->path, "look for attribute '%s'", name);
    CHECK(has, ERROR_DATA, "%s: has no attribute '%s', so it is no shard", a->path, name);
    hid_t attribute = H5Aopen(a->h5, name, H5P_DEFAULT);
    herr_t status = attribute < 0 ? -1 : hdf5_read_attribute(attribute, expected, type, value);
    if (attribute >= 0)
        H5Aclose(attribute);
    CHECK(status >= 0, ERROR_DATA, "%s: the attribute '%s' is not what a shard has there", a->path, name);
    return 0;
}

static int read_number(const asked *a, const char *name, int64_t least, int64_t most, int64_t *value)
{
    const hdf5_expected number = {.class = H5T_INTEGER, .bytes = sizeof *value, .count = 1};
    TRY(read_attribute(a, name, &number, H5T_NATIVE_INT64, value));
    CHECK(*value >= least && *value <= most, ERROR_DATA,
          "%s: the attribute '%s' is %" PRId64 ", expected %" PRId64 " to %" PRId64, a->path, name, *value, least,
          most);
    return 0;
}

/* A text of exactly that length. */
static int read_text(const asked *a, const char *name, size_t length, char *value)
{
    const hdf5_expected text = {.class = H5T_STRING, .bytes = length + 1, .count = 1};
    hid_t type = H5Tcopy(H5T_C_S1);
    int status = type < 0 || H5Tset_size(type, length + 1) < 0 ? h5_error(a->path, "make a type") : 0;
    if (status == 0)
        status = read_attribute(a, name, &text, type, value);
    if (type >= 0)
        H5Tclose(type);
    value[length] = '\0';
    return status;
}

static int read_format(const asked *a)
{
    char format[sizeof SHARD_FORMAT];
    int64_t version, complete;
    TRY(read_text(a, "format", sizeof format - 1, format));
    CHECK(strcmp(format, SHARD_FORMAT) == 0, ERROR_DATA, "%s: its format is '%s', expected '%s'", a->path, format,
          SHARD_FORMAT);
    TRY(read_number(a, "version", INT64_MIN, INT64_MAX, &version));
    CHECK(version == SHARD_VERSION, ERROR_DATA, "%s: shard format version %" PRId64 ", this program reads version %d",
          a->path, version, SHARD_VERSION);
    TRY(read_number(a, "complete", 0, 1, &complete));
    CHECK(complete, ERROR_DATA, "%s: the shard is not complete; pack the data set again", a->path);
    return 0;
}

static int read_attributes(const asked *a, shard_layout *l)
{
    const hdf5_expected number = {.class = H5T_INTEGER, .bytes = sizeof l->index_checksum, .count = 1};
    TRY(read_format(a));
    TRY(read_text(a, "plan", SHARD_ID_BYTES - 1, l->plan));
    TRY(read_number(a, "split", 0, 1, &l->split));
    TRY(read_number(a, "shard", 0, INT32_MAX, &l->shard));
    TRY(read_number(a, "shards", 1, INT32_MAX, &l->shards));
    TRY(read_number(a, "images", 1, INT32_MAX, &l->images));
    return read_attribute(a, "index_checksum", &number, H5T_NATIVE_UINT64, &l->index_checksum);
}

/* Whole numbers in one piece of this file, as they are in memory. */
static bool is_plain(hid_t dataset, size_t bytes)
{
    hid_t creation = H5Dget_create_plist(dataset), type = H5Dget_type(dataset);
    bool plain = creation >= 0 && type >= 0 && H5Pget_layout(creation) == H5D_CONTIGUOUS &&
                 H5Pget_external_count(creation) == 0 && H5Pget_nfilters(creation) == 0 &&
                 H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) == bytes &&
                 (bytes == 1 || H5Tget_order(type) == H5T_ORDER_LE);
    if (creation >= 0)
        H5Pclose(creation);
    if (type >= 0)
        H5Tclose(type);
    return plain;
}

/* Elements of a dataset of one dimension, or negative. */
static int64_t count_of(hid_t dataset)
{
    hid_t space = H5Dget_space(dataset);
    int64_t count = space >= 0 && H5Sget_simple_extent_ndims(space) == 1 ? H5Sget_simple_extent_npoints(space) : -1;
    if (space >= 0)
        H5Sclose(space);
    return count;
}

static int place_of(const asked *a, shard_dataset which, hid_t dataset, shard_place *place)
{
    const size_t bytes = datasets[which].bytes;
    const char *name = datasets[which].name;
    const int64_t count = count_of(dataset);
    CHECK(count > 0 && is_plain(dataset, bytes), ERROR_DATA,
          "%s: dataset '%s' is not a row of %zu-byte whole numbers in one piece of the file", a->path, name, bytes);
    const haddr_t offset = H5Dget_offset(dataset);
    CHECK(offset != HADDR_UNDEF && offset <= a->file_bytes && (uint64_t)count <= (a->file_bytes - offset) / bytes,
          ERROR_DATA, "%s: dataset '%s' of %" PRId64 " elements does not lie within the file of %" PRIu64 " bytes",
          a->path, name, count, a->file_bytes);
    *place = (shard_place){.offset = offset, .count = count};
    return 0;
}

static int find_dataset(const asked *a, shard_dataset which, shard_place *place)
{
    char path[64];
    snprintf(path, sizeof path, "/%s", datasets[which].name);
    const hdf5_place found = hdf5_find(a->h5, path);
    const bool optional = which == SHARD_LEFT_OUT || which == SHARD_LEFT_OUT_OFFSET;
    if (found == HDF5_MISSING && optional)
        return 0;
    CHECK(found == HDF5_HERE, ERROR_DATA, "%s: dataset '%s' is %s", a->path, datasets[which].name,
          found == HDF5_MISSING ? "missing" : "a link to somewhere else, which is not followed");
    hid_t dataset = H5Dopen2(a->h5, path, H5P_DEFAULT);
    CHECK(dataset >= 0, ERROR_DATA, "%s: '%s' cannot be opened as a dataset", a->path, datasets[which].name);
    int status = place_of(a, which, dataset, place);
    H5Dclose(dataset);
    return status;
}

static int check_count(const asked *a, const shard_layout *l, shard_dataset which, int64_t expected)
{
    CHECK(l->places[which].count == expected, ERROR_DATA,
          "%s: dataset '%s' has %" PRId64 " elements, expected %" PRId64, a->path, datasets[which].name,
          l->places[which].count, expected);
    return 0;
}

static int check_counts(const asked *a, const shard_layout *l)
{
    for (shard_dataset which = SHARD_OFFSET; which <= SHARD_FLAGS; which++)
        TRY(check_count(a, l, which, l->images));
    return check_count(a, l, SHARD_NAME_OFFSET, l->images + 1);
}

/* Groups keep their links in their headers, as the writer has it: HDF5 1.10 frees wild pointers when it searches a
 * damaged index of links. */
static int check_root(const asked *a)
{
    H5G_info_t info;
    if (H5Gget_info(a->h5, &info) < 0)
        return h5_error(a->path, "look at its root");
    CHECK(info.storage_type == H5G_STORAGE_TYPE_COMPACT, ERROR_DATA,
          "%s: its links are not in the root's header, as a shard keeps them", a->path);
    return 0;
}

static int read_open(const asked *a, shard_layout *layout)
{
    TRY(check_root(a));
    TRY(read_attributes(a, layout));
    for (shard_dataset which = 0; which < SHARD_DATASET_COUNT; which++)
        TRY(find_dataset(a, which, &layout->places[which]));
    return check_counts(a, layout);
}

int shard_layout_read(shard_layout *layout, const char *path, uint64_t file_bytes)
{
    memset(layout, 0, sizeof *layout);
    hdf5_begin();
    hid_t access = shard_hdf5_access();
    asked a = {.path = path, .file_bytes = file_bytes, .h5 = H5Fopen(path, H5F_ACC_RDONLY, access)};
    int status = a.h5 < 0 ? h5_error(path, "read it as a shard (HDF5)") : read_open(&a, layout);
    if (a.h5 >= 0)
        H5Fclose(a.h5);
    if (access >= 0)
        H5Pclose(access);
    hdf5_end();
    return status;
}
