/* Owns reading of reference results. Invariant: every HDF5 handle opened here is closed here. Main thread only. */
#include "io/reference_file.h"
#include "base/error.h"
#include "hdf5_value.h"
#include "io/file_kind.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ELEMENTS_MAX = 1 << 28 };

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

static int read_integers(reference_file *f)
{
    const struct {
        const char *name;
        int64_t *value;
        bool required;
    } integers[] = {
        {"classes", &f->classes, true},
        {"seed", &f->seed, true},
        {"batch", &f->batch, true},
        {"height", &f->height, true},
        {"width", &f->width, true},
        {"nesterov", &f->nesterov, true},
        {"steps", &f->steps, true},
        {"base_width", &f->base_width, false},
        {"student_width", &f->student_width, false},
    };
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
        if (integers[i].required || H5Aexists((hid_t)f->file, integers[i].name) > 0)
            TRY(read_attribute(f, integers[i].name, H5T_NATIVE_INT64, 1, integers[i].value));
    const int64_t most = 1 << 20; /* products of these stay within 64 bits */
    CHECK(f->classes <= most && f->batch <= most && f->height <= 1 << 12 && f->width <= 1 << 12 && f->steps <= most &&
              f->base_width >= 0 && f->base_width <= 1 << 14 && f->student_width >= 0 && f->student_width <= 1 << 14,
          ERROR_FILE, "%s: classes, batch, height, width, steps, base_width or student_width is out of bounds",
          f->path);
    CHECK(f->classes > 0 && f->batch > 0 && f->height > 0 && f->width > 0 && f->steps > 0, ERROR_FILE,
          "%s: classes, batch, height, width and steps must be positive", f->path);
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
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
        TRY(read_attribute(f, reals[i].name, H5T_NATIVE_DOUBLE, reals[i].count, reals[i].value));
    return 0;
}

int reference_open(reference_file *f, const char *path)
{
    memset(f, 0, sizeof *f);
    snprintf(f->path, sizeof f->path, "%s", path);
    TRY(file_kind_check(path, EXPECT_REFERENCE));
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hdf5_follow_no_links();
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_file_locking(access, false, true); /* reading needs no lock, which some file systems lack */
    f->file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    CHECK(f->file >= 0, ERROR_FILE, "%s: cannot be opened as an HDF5 file", path);
    int status = read_problem(f);
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

static int64_t dataset_elements(hid_t dataset)
{
    hid_t space = H5Dget_space(dataset);
    int64_t count = H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    return count;
}

int reference_read(const reference_file *f, const char *name, int64_t count, double *values)
{
    hid_t dataset = H5Dopen2((hid_t)f->file, name, H5P_DEFAULT);
    CHECK(dataset >= 0, ERROR_FILE, "%s: the dataset \"%s\" is missing", f->path, name);
    int64_t found = dataset_elements(dataset);
    const hdf5_expected expected = numbers(count);
    herr_t status = hdf5_read_dataset(dataset, &expected, H5T_NATIVE_DOUBLE, values);
    H5Dclose(dataset);
    CHECK(found == count, ERROR_FILE, "%s: \"%s\" has %lld elements, expected %lld", f->path, name, (long long)found,
          (long long)count);
    CHECK(status >= 0, ERROR_FILE, "%s: \"%s\" cannot be read", f->path, name);
    return 0;
}

static int read_all(hid_t parent, const char *name, hid_t type, size_t element, int64_t *count, void **values)
{
    hid_t dataset = H5Dopen2(parent, name, H5P_DEFAULT);
    if (dataset < 0)
        return -1;
    *count = dataset_elements(dataset);
    bool possible = *count >= 0 && *count <= ELEMENTS_MAX; /* more would overflow the size, or is no sample */
    *values = possible ? malloc((size_t)*count * element + 1) : NULL;
    const hdf5_expected expected = numbers(*count);
    herr_t status = *values ? hdf5_read_dataset(dataset, &expected, type, *values) : -1;
    H5Dclose(dataset);
    return status < 0 ? -1 : 0;
}

static int read_scalar(hid_t object, const char *name, double *value)
{
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0)
        return -1;
    const hdf5_expected expected = numbers(1);
    herr_t status = hdf5_read_attribute(attribute, &expected, H5T_NATIVE_DOUBLE, value);
    H5Aclose(attribute);
    return status < 0 ? -1 : 0;
}

static int read_sampled(hid_t group, reference_tensor *out)
{
    int64_t indices = 0;
    bool ok = read_scalar(group, "l2", &out->l2) == 0 && read_scalar(group, "sum", &out->sum) == 0 &&
              read_all(group, "index", H5T_NATIVE_INT64, sizeof *out->index, &indices, (void **)&out->index) == 0 &&
              read_all(group, "value", H5T_NATIVE_DOUBLE, sizeof *out->value, &out->samples, (void **)&out->value) == 0;
    return ok && indices == out->samples ? 0 : -1;
}

int reference_read_tensor(const reference_file *f, const char *group, const char *name, reference_tensor *out)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", group, name);
    *out = (reference_tensor){.l2 = NAN, .sum = NAN};
    hid_t object = H5Oopen((hid_t)f->file, path, H5P_DEFAULT);
    CHECK(object >= 0, ERROR_FILE, "%s: \"%s\" is missing", f->path, path);
    int status;
    if (H5Iget_type(object) == H5I_GROUP)
        status = read_sampled(object, out);
    else
        status =
            read_all((hid_t)f->file, path, H5T_NATIVE_DOUBLE, sizeof *out->value, &out->samples, (void **)&out->value);
    H5Oclose(object);
    if (status < 0) {
        reference_tensor_free(out);
        return error_set(ERROR_FILE, "%s: \"%s\" has no readable l2, sum, index and value", f->path, path);
    }
    return 0;
}

void reference_tensor_free(reference_tensor *t)
{
    free(t->index);
    free(t->value);
    *t = (reference_tensor){0};
}

bool reference_has(const reference_file *f, const char *group, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", group, name);
    return H5Lexists((hid_t)f->file, path, H5P_DEFAULT) > 0;
}

int64_t reference_count(const reference_file *f, const char *group)
{
    H5G_info_t info;
    hid_t id = H5Gopen2((hid_t)f->file, group, H5P_DEFAULT);
    herr_t status = id >= 0 ? H5Gget_info(id, &info) : -1;
    if (id >= 0)
        H5Gclose(id);
    CHECK(status >= 0, ERROR_FILE, "%s: the group \"%s\" is missing", f->path, group);
    return (int64_t)info.nlinks;
}
