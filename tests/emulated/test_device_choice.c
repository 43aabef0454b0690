/* From settings to a device: what auto means on which machine, and which precision a device takes. The GPUs are those
 * of the emulated machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "emulated.h"
#include "session/device.h"

typedef struct {
    comm *ranks;
    char *said; /* by the log */
    size_t said_bytes;
    logger log;
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_int_equal(comm_open_self(&f->ranks), 0);
    log_open(&f->log, 0, 1, "here");
    f->log.out = open_memstream(&f->said, &f->said_bytes);
    assert_non_null(f->log.out);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    emulated_set_machine(NULL);
    fclose(f->log.out);
    free(f->said);
    comm_close(f->ranks);
    free(f);
    return 0;
}

static int open_with(fixture *f, int device, int precision, backend **out)
{
    settings config;
    settings_default(&config);
    config.run.device = device;
    config.run.precision = precision;
    *out = NULL;
    int code = device_open(out, &config, f->ranks, 1, &f->log);
    fflush(f->log.out);
    assert_true((code == 0) == (*out != NULL));
    return code;
}

static void opens(fixture *f, int device, int precision, const char *name, dtype activation)
{
    backend *opened;
    if (open_with(f, device, precision, &opened) < 0)
        fail_msg("%s", error_message());
    assert_string_equal(opened->ops->name, name);
    assert_int_equal(opened->ops->activation, activation);
    opened->ops->close(opened);
}

static void refuses(fixture *f, int device, int precision, int expected, const char *words)
{
    backend *opened;
    assert_int_equal(open_with(f, device, precision, &opened), expected);
    if (!strstr(error_message(), words))
        fail_msg("\"%s\" does not say \"%s\"", error_message(), words);
}

static void with_a_gpu(void **state)
{
    fixture *f = *state;
    opens(f, DEVICE_AUTO, PRECISION_AUTO, "cuda", DTYPE_F16);
    opens(f, DEVICE_AUTO, PRECISION_BF16, "cuda", DTYPE_BF16);
    opens(f, DEVICE_CUDA, PRECISION_AUTO, "cuda", DTYPE_F16);
    opens(f, DEVICE_CUDA, PRECISION_TF32, "cuda", DTYPE_F32);
    opens(f, DEVICE_CUDA, PRECISION_FP32, "cuda", DTYPE_F32);
    opens(f, DEVICE_CPU, PRECISION_AUTO, "cpu", DTYPE_F32);
    opens(f, DEVICE_CPU, PRECISION_FP32, "cpu", DTYPE_F32);
    opens(f, DEVICE_REFERENCE, PRECISION_AUTO, "reference", DTYPE_F64);
    assert_string_equal(f->said, "");
}

static void without_a_gpu(void **state)
{
    fixture *f = *state;
    emulated_machine none = emulated_get_machine();
    none.gpus = none.driver = 0;
    none.count = cudaErrorInsufficientDriver;
    emulated_set_machine(&none);
    opens(f, DEVICE_AUTO, PRECISION_AUTO, "cpu", DTYPE_F32);
    opens(f, DEVICE_AUTO, PRECISION_FP32, "cpu", DTYPE_F32);
    assert_string_equal(f->said, ""); /* nothing was expected, nothing is said */
    refuses(f, DEVICE_AUTO, PRECISION_FP16, ERROR_SETTINGS, "run.precision: this one needs a GPU");
    refuses(f, DEVICE_AUTO, PRECISION_TF32, ERROR_SETTINGS, "no NVIDIA driver is installed");
    refuses(f, DEVICE_CUDA, PRECISION_AUTO, ERROR_KERNEL, "no GPU can be used: no NVIDIA driver is installed");
}

static void with_a_gpu_that_cannot_be_used(void **state)
{
    fixture *f = *state;
    emulated_machine busy = emulated_get_machine();
    busy.context = cudaErrorDevicesUnavailable;
    emulated_set_machine(&busy);
    opens(f, DEVICE_AUTO, PRECISION_AUTO, "cpu", DTYPE_F32);
    assert_non_null(strstr(f->said, "the GPUs are left alone: GPU 0: Emulated GPU"));
    assert_non_null(strstr(f->said, "another process has it"));
    refuses(f, DEVICE_CUDA, PRECISION_AUTO, ERROR_KERNEL, "another process has it");
}

static void with_an_older_gpu(void **state)
{
    fixture *f = *state;
    emulated_machine turing = emulated_get_machine();
    turing.major = 7;
    turing.minor = 5;
    emulated_set_machine(&turing);
    opens(f, DEVICE_AUTO, PRECISION_AUTO, "cuda", DTYPE_F16);
    refuses(f, DEVICE_AUTO, PRECISION_BF16, ERROR_SETTINGS, "bf16 needs 8.0");
    refuses(f, DEVICE_CUDA, PRECISION_BF16, ERROR_SETTINGS, "bf16 needs 8.0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(with_a_gpu, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_a_gpu, set_up, tear_down),
        cmocka_unit_test_setup_teardown(with_a_gpu_that_cannot_be_used, set_up, tear_down),
        cmocka_unit_test_setup_teardown(with_an_older_gpu, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
