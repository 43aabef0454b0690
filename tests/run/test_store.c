/* The store: what it holds, and the way from memory order to file order and back against an index written out. */
#include "base/error.h"
#include "run/store.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { OUT = 4, HEIGHT = 2, WIDTH = 3, IN = 5 };

typedef struct {
    backend *device;
    graph g;
    store tensors;
} fixture;

static void open_fixture(fixture *f, dtype real)
{
    assert_int_equal(backend_reference_open(&f->device, 1), 0);
    graph_init(&f->g, real);
    graph_input(&f->g, "input", (uint8_t)real, (const int32_t[]){2, 8, 8, 3});
    graph_parameter(&f->g, "conv.weight", LAYOUT_OHWI, (const int32_t[]){OUT, HEIGHT, WIDTH, IN});
    graph_parameter(&f->g, "fc.weight", LAYOUT_OI, (const int32_t[]){OUT, 1, 1, IN});
    graph_parameter(&f->g, "fc.bias", LAYOUT_C, (const int32_t[]){1, 1, 1, OUT});
    graph_state(&f->g, "bn.running_mean", LAYOUT_C, (const int32_t[]){1, 1, 1, OUT});
    assert_int_equal(graph_status(&f->g), 0);
    assert_int_equal(store_open(&f->tensors, f->device, &f->g), 0);
}

static void close_fixture(fixture *f)
{
    store_close(&f->tensors);
    graph_free(&f->g);
    f->device->ops->close(f->device);
}

static double element(const store_entry *entry, int64_t index)
{
    return entry->desc.dtype == DTYPE_F64 ? ((double *)entry->memory)[index] : (double)((float *)entry->memory)[index];
}

static void holds_parameters_and_states(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, DTYPE_F32);
    assert_int_equal(f.tensors.n_entries, 4);
    assert_null(store_find(&f.tensors, "input"));
    assert_null(store_find(&f.tensors, "conv.bias"));
    assert_int_equal(store_find(&f.tensors, "bn.running_mean")->desc.kind, KIND_STATE);
    for (uint32_t i = 0; i < f.tensors.n_entries; i++) {
        const store_entry *entry = &f.tensors.entries[i];
        assert_int_equal((uintptr_t)entry->memory % 64, 0);
        for (int64_t k = 0; k < tensor_count(&entry->desc); k++)
            assert_true(element(entry, k) == 0);
    }
    close_fixture(&f);
}

static void file_shapes(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, DTYPE_F32);
    int64_t shape[4];
    assert_int_equal(store_file_shape(&store_find(&f.tensors, "conv.weight")->desc, shape), 4);
    assert_memory_equal(shape, ((int64_t[]){OUT, IN, HEIGHT, WIDTH}), sizeof shape);
    assert_int_equal(store_file_shape(&store_find(&f.tensors, "fc.weight")->desc, shape), 2);
    assert_memory_equal(shape, ((int64_t[]){OUT, IN}), sizeof(int64_t[2]));
    assert_int_equal(store_file_shape(&store_find(&f.tensors, "fc.bias")->desc, shape), 1);
    assert_int_equal(shape[0], OUT);
    close_fixture(&f);
}

/* Files hold a convolution's weight as O,I,H,W, memory as O,H,W,I. */
static void convolution_weight_changes_order(void **state)
{
    (void)state;
    const dtype types[] = {DTYPE_F32, DTYPE_F64};
    for (int t = 0; t < 2; t++) {
        fixture f;
        open_fixture(&f, types[t]);
        store_entry *entry = store_find(&f.tensors, "conv.weight");
        double file[OUT * IN * HEIGHT * WIDTH], back[OUT * IN * HEIGHT * WIDTH];
        for (int i = 0; i < OUT * IN * HEIGHT * WIDTH; i++)
            file[i] = i;
        store_import_f64(f.device, entry, file);
        for (int o = 0; o < OUT; o++)
            for (int i = 0; i < IN; i++)
                for (int y = 0; y < HEIGHT; y++)
                    for (int x = 0; x < WIDTH; x++)
                        assert_true(element(entry, ((o * HEIGHT + y) * WIDTH + x) * IN + i) ==
                                    file[((o * IN + i) * HEIGHT + y) * WIDTH + x]);
        store_export_f64(f.device, entry, back);
        assert_memory_equal(file, back, sizeof file);
        close_fixture(&f);
    }
}

static void matrices_and_vectors_keep_their_order(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, DTYPE_F64);
    double file[OUT * IN];
    for (int i = 0; i < OUT * IN; i++)
        file[i] = 100 - i;
    store_import_f64(f.device, store_find(&f.tensors, "fc.weight"), file);
    assert_memory_equal(store_find(&f.tensors, "fc.weight")->memory, file, sizeof file);
    store_import_f64(f.device, store_find(&f.tensors, "bn.running_mean"), file);
    assert_memory_equal(store_find(&f.tensors, "bn.running_mean")->memory, file, OUT * sizeof *file);
    close_fixture(&f);
}

/* Wherever it is among what a checkpoint holds, the first is named; not in what it does not hold. */
static void numbers_that_are_not_finite_are_counted(void **state)
{
    (void)state;
    const char *const names[] = {"momentum/fc.weight", "bn.running_mean", "fc.bias", "conv.weight"};
    fixture f;
    int64_t count;
    const store_entry *found;
    open_fixture(&f, DTYPE_F64);
    graph_state(&f.g, "loss_sums", LAYOUT_C, (const int32_t[]){1, 1, 1, 3});
    graph_state(&f.g, "momentum/fc.weight", LAYOUT_OI, (const int32_t[]){OUT, 1, 1, IN});
    store_close(&f.tensors);
    assert_int_equal(store_open(&f.tensors, f.device, &f.g), 0);
    ((double *)store_find(&f.tensors, "loss_sums")->memory)[0] = NAN;
    assert_int_equal(store_count_not_finite(&f.tensors, &count), 0);
    assert_int_equal(count, 0);
    assert_int_equal(store_find_not_finite(&f.tensors, &found), 0);
    assert_null(found);
    for (int i = 0; i < 4; i++) {
        const store_entry *entry = store_find(&f.tensors, names[i]);
        ((double *)entry->memory)[tensor_count(&entry->desc) - 1] = i % 2 ? -INFINITY : NAN;
        assert_int_equal(store_count_not_finite(&f.tensors, &count), 0);
        assert_int_equal(count, i + 1);
        assert_int_equal(store_find_not_finite(&f.tensors, &found), 0);
        assert_string_equal(found->name, names[i]);
    }
    close_fixture(&f);
}

/* In the entry's own type nothing is rounded; float64 is rounded once. */
static void round_trip_in_the_own_type(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, DTYPE_F32);
    store_entry *entry = store_find(&f.tensors, "conv.weight");
    float file[OUT * IN * HEIGHT * WIDTH], back[OUT * IN * HEIGHT * WIDTH];
    double wide[OUT * IN * HEIGHT * WIDTH];
    for (int i = 0; i < OUT * IN * HEIGHT * WIDTH; i++) {
        wide[i] = 1.0 / (i + 3);
        file[i] = (float)wide[i];
    }
    store_import(f.device, entry, file);
    store_export(f.device, entry, back);
    assert_memory_equal(file, back, sizeof file);
    store_import_f64(f.device, entry, wide);
    store_export(f.device, entry, back);
    assert_memory_equal(file, back, sizeof file);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_parameters_and_states),      cmocka_unit_test(file_shapes),
        cmocka_unit_test(convolution_weight_changes_order), cmocka_unit_test(matrices_and_vectors_keep_their_order),
        cmocka_unit_test(round_trip_in_the_own_type),       cmocka_unit_test(numbers_that_are_not_finite_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
