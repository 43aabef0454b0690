/* Owns reading of reference results. Invariant: every HDF5 handle opened here is closed here. Main thread only. */
#include "io/file/reference_file.h"
#include "base/error.h"
#include "hdf5_value.h"
#include "io/file/file_kind.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_BYTES = 256 };

static hdf5_expected numbers(int64_t count)
{
    return (hdf5_expected){.class = H5T_NO_CLASS, .count = count};
}

static int read_attribute(const reference_file *f, const char *name, hid_t type, int64_t count, void *value)
{
    hid_t attribute = H5Aopen((hid_t)f->file, name, H5P_DEFAULT);
    CHECK(attribute >= 0, ERROR_FILE, "%s: the attribute \"%s\" is missing", f->path, name);
    const hdf5_expected expected = numbers(count);
    herr_t status = hdf5_read_attribute(attribute, &expected, type, value);
    H5Aclose(attribute);
    CHECK(status >= 0, ERROR_FILE, "%s: the attribute \"%s\" is not %lld numbers", f->path, name, (long long)count);
    return 0;
}

static int read_text(const reference_file *f, const char *name, char *text, size_t bytes)
{
    hid_t attribute = H5Aopen((hid_t)f->file, name, H5P_DEFAULT);
    CHECK(attribute >= 0, ERROR_FILE, "%s: the attribute \"%s\" is missing", f->path, name);
    hid_t type = H5Aget_type(attribute);
    char *value = NULL;
    const hdf5_expected text_of_any_length = {.class = H5T_STRING, .count = 1};
    bool variable = H5Tis_variable_str(type) > 0;
    herr_t status = variable ? hdf5_read_attribute(attribute, &text_of_any_length, type, &value) : -1;
    if (status >= 0)
        snprintf(text, bytes, "%s", value ? value : "");
    if (variable && value)
        H5free_memory(value);
    H5Tclose(type);
    H5Aclose(attribute);
    CHECK(status >= 0, ERROR_FILE, "%s: the attribute \"%s\" is not text", f->path, name);
    return 0;
}

/* The bounds keep products of these numbers within 64 bits. */
static int read_integers(reference_file *f)
{
    enum { MOST = 1 << 20, SIDE = 1 << 12, CHANNELS = 1 << 14 };
    const struct {
        const char *name;
        int64_t *value, least, most;
        bool required;
    } integers[] = {
        {"classes", &f->classes, 1, MOST, true},
        {"seed", &f->seed, INT64_MIN, INT64_MAX, true},
        {"batch", &f->batch, 1, MOST, true},
        {"height", &f->height, 1, SIDE, true},
        {"width", &f->width, 1, SIDE, true},
        {"nesterov", &f->nesterov, 0, 1, true},
        {"steps", &f->steps, 1, MOST, true},
        {"base_width", &f->base_width, 0, CHANNELS, false},
        {"student_width", &f->student_width, 0, CHANNELS, false},
    };
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        const char *name = integers[i].name;
        int64_t *value = integers[i].value;
        if (integers[i].required || H5Aexists((hid_t)f->file, name) > 0)
            TRY(read_attribute(f, name, H5T_NATIVE_INT64, 1, value));
        CHECK(*value >= integers[i].least && *value <= integers[i].most, ERROR_FILE,
              "%s: the attribute \"%s\" is %lld, expected %lld to %lld", f->path, name, (long long)*value,
              (long long)integers[i].least, (long long)integers[i].most);
    }
    return 0;
}

static int read_reals(reference_file *f)
{
    const struct {
        const char *name;
        double *value;
        int64_t count;
    } reals[] = {
        {"temperature", &f->temperature, 1},
        {"ce_weight", &f->ce_weight, 1},
        {"kd_weight", &f->kd_weight, 1},
        {"feature_weight", &f->feature_weight, 1},
        {"teacher_weight", &f->teacher_weight, 1},
        {"student_weights", f->student_weights, 3},
        {"lr", &f->lr, 1},
        {"momentum", &f->momentum, 1},
        {"weight_decay", &f->weight_decay, 1},
    };
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        TRY(read_attribute(f, reals[i].name, H5T_NATIVE_DOUBLE, reals[i].count, reals[i].value));
        for (int64_t k = 0; k < reals[i].count; k++)
            CHECK(isfinite(reals[i].value[k]), ERROR_FILE, "%s: the attribute \"%s\" is %g, expected a finite number",
                  f->path, reals[i].name, reals[i].value[k]);
    }
    CHECK(f->temperature > 0, ERROR_FILE, "%s: the attribute \"temperature\" is %g, expected more than 0", f->path,
          f->temperature);
    return 0;
}

static int read_lars(reference_file *f)
{
    if (H5Aexists((hid_t)f->file, "lars_eta") > 0)
        TRY(read_attribute(f, "lars_eta", H5T_NATIVE_DOUBLE, 1, &f->lars_eta));
    CHECK(f->lars_eta >= 0 && isfinite(f->lars_eta), ERROR_FILE,
          "%s: the attribute \"lars_eta\" is %g, expected a finite number of at least 0", f->path, f->lars_eta);
    return 0;
}

static int read_problem(reference_file *f)
{
    char format[64];
    TRY(read_text(f, "format", format, sizeof format));
    CHECK(strcmp(format, "teskd-reference") == 0, ERROR_FILE, "%s: format \"%s\", expected \"teskd-reference\"",
          f->path, format);
    TRY(read_text(f, "network", f->network, sizeof f->network));
    TRY(read_integers(f));
    TRY(read_lars(f));
    return read_reals(f);
}

static int open_file(reference_file *f)
{
    struct stat status;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hdf5_follow_no_links();
    H5Pset_file_locking(access, false, true); /* reading needs no lock, which some file systems lack */
    f->file = H5Fopen(f->path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    CHECK(f->file >= 0 && stat(f->path, &status) == 0, ERROR_FILE, "%s: cannot be opened as an HDF5 file", f->path);
    f->bytes = status.st_size;
    return 0;
}

int reference_open(reference_file *f, const char *path)
{
    memset(f, 0, sizeof *f);
    snprintf(f->path, sizeof f->path, "%s", path);
    TRY(file_kind_check(path, EXPECT_REFERENCE));
    int status = open_file(f);
    if (status == 0)
        status = read_problem(f);
    if (status < 0)
        reference_close(f);
    return status;
}

void reference_close(reference_file *f)
{
    if (f->file > 0)
        H5Fclose((hid_t)f->file);
    f->file = 0;
}

static int open_object(const reference_file *f, const char *path, hid_t *object)
{
    hdf5_place place = hdf5_find((hid_t)f->file, path);
    *object = H5I_INVALID_HID;
    CHECK(place != HDF5_LINKED_ELSEWHERE, ERROR_FILE, "%s: \"%s\" is a link to somewhere else, which is not followed",
          f->path, path);
    *object = place == HDF5_HERE ? H5Oopen((hid_t)f->file, path, H5P_DEFAULT) : H5I_INVALID_HID;
    CHECK(*object >= 0, ERROR_FILE, "%s: \"%s\" is missing", f->path, path);
    return 0;
}

static int64_t dataset_elements(hid_t dataset)
{
    hid_t space = H5Dget_space(dataset);
    int64_t count = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    if (space >= 0)
        H5Sclose(space);
    return count;
}

/* Each element takes a byte of the file at least, so a file that is damaged cannot ask for more memory than its size
 * explains. */
static int check_dataset(const reference_file *f, const char *path, hid_t object, int64_t *count)
{
    CHECK(H5Iget_type(object) == H5I_DATASET, ERROR_FILE, "%s: \"%s\" is no dataset", f->path, path);
    CHECK(!hdf5_is_stored_elsewhere(object), ERROR_FILE,
          "%s: the values of \"%s\" are in another file, which is not read", f->path, path);
    *count = dataset_elements(object);
    CHECK(*count >= 0 && *count <= f->bytes, ERROR_FILE, "%s: \"%s\" has %lld elements, more than the file has bytes",
          f->path, path, (long long)*count);
    return 0;
}

static int open_dataset(const reference_file *f, const char *path, hid_t *dataset, int64_t *count)
{
    TRY(open_object(f, path, dataset));
    int status = check_dataset(f, path, *dataset, count);
    if (status < 0)
        H5Oclose(*dataset);
    return status;
}

static int read_values(const reference_file *f, const char *path, hid_t dataset, hid_t type, int64_t count,
                       void *values)
{
    const hdf5_expected expected = numbers(count);
    CHECK(hdf5_read_dataset(dataset, &expected, type, values) >= 0, ERROR_FILE, "%s: \"%s\" cannot be read as numbers",
          f->path, path);
    return 0;
}

int reference_read(const reference_file *f, const char *name, int64_t count, double *values)
{
    hid_t dataset;
    int64_t found;
    TRY(open_dataset(f, name, &dataset, &found));
    int status = found == count ? read_values(f, name, dataset, H5T_NATIVE_DOUBLE, count, values)
                                : error_set(ERROR_FILE, "%s: \"%s\" has %lld elements, expected %lld", f->path, name,
                                            (long long)found, (long long)count);
    H5Oclose(dataset);
    return status;
}

/* Elements of 8 bytes, which the caller frees. */
static int read_all(const reference_file *f, const char *path, hid_t type, int64_t *count, void **values)
{
    hid_t dataset;
    TRY(open_dataset(f, path, &dataset, count));
    *values = malloc((size_t)*count * 8 + 1);
    int status = *values ? read_values(f, path, dataset, type, *count, *values)
                         : error_set(ERROR_MEMORY, "%s: no memory for \"%s\"", f->path, path);
    H5Oclose(dataset);
    return status;
}

static int read_scalar(const reference_file *f, const char *path, hid_t object, const char *name, double *value)
{
    const hdf5_expected single = numbers(1);
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    herr_t status = attribute < 0 ? -1 : hdf5_read_attribute(attribute, &single, H5T_NATIVE_DOUBLE, value);
    if (attribute >= 0)
        H5Aclose(attribute);
    CHECK(status >= 0, ERROR_FILE, "%s: \"%s\" has no number \"%s\"", f->path, path, name);
    return 0;
}

static int read_sampled(const reference_file *f, const char *path, hid_t group, reference_tensor *out)
{
    char index[PATH_BYTES], value[PATH_BYTES];
    int64_t indices = 0;
    snprintf(index, sizeof index, "%s/index", path);
    snprintf(value, sizeof value, "%s/value", path);
    TRY(read_scalar(f, path, group, "l2", &out->l2));
    TRY(read_scalar(f, path, group, "sum", &out->sum));
    TRY(read_all(f, index, H5T_NATIVE_INT64, &indices, (void **)&out->index));
    TRY(read_all(f, value, H5T_NATIVE_DOUBLE, &out->samples, (void **)&out->value));
    CHECK(indices == out->samples, ERROR_FILE, "%s: \"%s\" has %lld elements, expected %lld as \"%s\"", f->path, index,
          (long long)indices, (long long)out->samples, value);
    return 0;
}

int reference_read_tensor(const reference_file *f, const char *group, const char *name, reference_tensor *out)
{
    char path[PATH_BYTES - sizeof "/index"];
    hid_t object;
    *out = (reference_tensor){.l2 = NAN, .sum = NAN};
    int length = snprintf(path, sizeof path, "%s/%s", group, name);
    CHECK(length < (int)sizeof path, ERROR_FILE, "%s: the name \"%s/%s\" is too long", f->path, group, name);
    TRY(open_object(f, path, &object));
    int status = H5Iget_type(object) == H5I_GROUP
                     ? read_sampled(f, path, object, out)
                     : read_all(f, path, H5T_NATIVE_DOUBLE, &out->samples, (void **)&out->value);
    H5Oclose(object);
    if (status < 0)
        reference_tensor_free(out);
    return status;
}

void reference_tensor_free(reference_tensor *t)
{
    free(t->index);
    free(t->value);
    *t = (reference_tensor){0};
}

bool reference_has(const reference_file *f, const char *group, const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", group, name);
    return hdf5_find((hid_t)f->file, path) != HDF5_MISSING;
}

int64_t reference_count(const reference_file *f, const char *group)
{
    H5G_info_t info;
    hid_t id;
    TRY(open_object(f, group, &id));
    herr_t status = H5Gget_info(id, &info);
    H5Oclose(id);
    CHECK(status >= 0, ERROR_FILE, "%s: \"%s\" is no group", f->path, group);
    return (int64_t)info.nlinks;
}
