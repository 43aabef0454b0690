/* Opening a CUDA backend on emulated machines: which rank takes which GPU, what cannot be used and why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "device_fixture.h"
#include "emulated_backend.h"
#include "kernels/cuda/device/cuda_devices.h"
#include "kernels/cuda/device/cuda_open.h"

static int open_on(emulated_machine machine, cuda_options options)
{
    backend *device = NULL;
    emulated_set_machine(&machine);
    int code = backend_cuda_open(&device, &options);
    if (code == 0)
        device->ops->close(device);
    else
        assert_null(device);
    assert_int_equal(emulated_used(), 0);
    emulated_set_machine(NULL);
    return code;
}

static void machines_that_cannot_be_used(void **state)
{
    (void)state;
    emulated_machine m, usual = emulated_get_machine();
    const cuda_options fp16 = {.precision = CUDA_FP16};

    m = usual, m.gpus = 0, m.driver = 0, m.count = cudaErrorInsufficientDriver;
    says(open_on(m, fp16), ERROR_KERNEL, "no GPU can be used: no NVIDIA driver is installed");
    m = usual, m.driver = 12020, m.count = cudaErrorInsufficientDriver;
    says(open_on(m, fp16), ERROR_KERNEL, "driver is made for CUDA 12.2 and this program for CUDA 13.0");
    m = usual, m.gpus = 0, m.count = cudaErrorNoDevice;
    says(open_on(m, fp16), ERROR_KERNEL, "the driver shows no GPU");
    m = usual, m.gpus = 0;
    says(open_on(m, fp16), ERROR_KERNEL, "the driver shows no GPU");
    assert_int_equal(setenv("CUDA_VISIBLE_DEVICES", "9", 1), 0);
    says(open_on(m, fp16), ERROR_KERNEL, "CUDA_VISIBLE_DEVICES is \"9\"");
    unsetenv("CUDA_VISIBLE_DEVICES");
    m = usual, m.count = cudaErrorSystemNotReady;
    says(open_on(m, fp16), ERROR_KERNEL, "nvidia-fabricmanager");
    m = usual, m.major = 7, m.minor = 0;
    says(open_on(m, fp16), ERROR_KERNEL, "GPU 0: Emulated GPU has compute capability 7.0; 7.5 (Turing) or newer");
    m = usual, m.compute_mode = cudaComputeModeProhibited;
    says(open_on(m, fp16), ERROR_KERNEL, "compute mode \"prohibited\"");
    m = usual, m.context = cudaErrorDevicesUnavailable;
    says(open_on(m, fp16), ERROR_KERNEL, "GPU 0: Emulated GPU: CUDA-capable device(s) is/are busy");
    says(open_on(m, fp16), ERROR_KERNEL, "another process has it for itself");
    says(open_on(m, (cuda_options){.local_rank = 1}), ERROR_KERNEL, "as this host has more of them than GPUs (1): ");
    m = usual, m.context = cudaErrorMemoryAllocation;
    says(open_on(m, fp16), ERROR_KERNEL, "other processes have taken its memory");
    m = usual, m.context = cudaErrorECCUncorrectable;
    says(open_on(m, fp16), ERROR_KERNEL, "it is broken");
    m = usual, m.kernel = cudaErrorNoKernelImageForDevice;
    says(open_on(m, fp16), ERROR_KERNEL, "a first kernel on Emulated GPU: starting a kernel: no kernel image");
}

static void precisions_need_a_capability(void **state)
{
    (void)state;
    emulated_machine turing = emulated_get_machine(), ampere = turing;
    turing.major = 7, turing.minor = 5;
    ampere.major = 8, ampere.minor = 0;
    ok(open_on(turing, (cuda_options){.precision = CUDA_FP16}));
    ok(open_on(turing, (cuda_options){.precision = CUDA_FP32}));
    says(open_on(turing, (cuda_options){.precision = CUDA_BF16}), ERROR_SETTINGS,
         "run.precision: Emulated GPU has compute capability 7.5, and bf16 needs 8.0");
    says(open_on(turing, (cuda_options){.precision = CUDA_TF32}), ERROR_SETTINGS, "tf32 needs 8.0");
    ok(open_on(ampere, (cuda_options){.precision = CUDA_BF16}));
    ok(open_on(ampere, (cuda_options){.precision = CUDA_TF32}));
}

static void tables_follow_the_precision(void **state)
{
    static const struct {
        cuda_precision precision;
        dtype activation;
        double error;
        const char *name;
    } rows[] = {{CUDA_FP16, DTYPE_F16, 2e-3, ", fp16, "},
                {CUDA_BF16, DTYPE_BF16, 1e-2, ", bf16, "},
                {CUDA_TF32, DTYPE_F32, 1e-3, ", tf32, deterministic, "},
                {CUDA_FP32, DTYPE_F32, 1e-5, ", fp32, "}};
    (void)state;
    backend *open[4];
    for (int i = 0; i < 4; i++)
        ok(backend_cuda_open(&open[i], &(cuda_options){.precision = rows[i].precision,
                                                       .deterministic = rows[i].precision == CUDA_TF32}));
    for (int i = 0; i < 4; i++) {
        const backend_ops *ops = open[i]->ops;
        assert_int_equal(ops->real, DTYPE_F32);
        assert_int_equal(ops->activation, rows[i].activation);
        assert_true(ops->op_error == rows[i].error && !ops->host_memory && ops->pads_images);
        assert_non_null(strstr(ops->description(open[i]), rows[i].name));
        assert_non_null(strstr(ops->description(open[i]), "cuda: Emulated GPU (sm_90, "));
        assert_non_null(strstr(ops->description(open[i]), "CUDA runtime 13.0, driver 13.0"));
        ops->close(open[i]);
    }
}

static void ranks_take_gpus_in_turn(void **state)
{
    static const char *const ids[] = {"0000:10:00.0", "0000:11:00.0", "0000:12:00.0", "0000:10:00.0"};
    (void)state;
    emulated_machine three = emulated_get_machine();
    three.gpus = 3;
    emulated_set_machine(&three);
    for (int rank = 0; rank < 4; rank++) {
        backend *device;
        ok(backend_cuda_open(&device, &(cuda_options){.precision = CUDA_FP16, .local_rank = rank}));
        assert_string_equal(device->ops->pci_address(device), ids[rank]);
        device->ops->close(device);
    }
}

static void the_machine_is_described(void **state)
{
    (void)state;
    char text[256];
    ok(cuda_device_describe(0, text, sizeof text));
    assert_string_equal(text, "Emulated GPU, compute capability 9.0, 4 multiprocessors, 1.0 GiB");
    says(cuda_device_describe(1, text, sizeof text), ERROR_KERNEL, "GPU 1: invalid device ordinal");
    assert_int_equal(cuda_device_count(), 1);
    emulated_machine bare = emulated_get_machine();
    bare.driver = bare.gpus = 0;
    bare.count = cudaErrorInsufficientDriver;
    emulated_set_machine(&bare);
    assert_int_equal(cuda_device_count(), 0);
    cuda_versions(text, sizeof text);
    assert_string_equal(text, "CUDA runtime 13.0, driver none");
}

/* Whichever call fails, opening says so and leaves nothing behind. */
static void every_failure_of_opening(void **state)
{
    (void)state;
    int nth = 0, code;
    bool came;
    do {
        backend *device = NULL;
        emulated_fail(++nth, cudaErrorInvalidResourceHandle);
        code = backend_cuda_open(&device, &(cuda_options){.precision = CUDA_FP16});
        came = !emulated_failure_pending();
        emulated_fail(0, cudaSuccess);
        if (came)
            says(code, ERROR_KERNEL, "invalid argument");
        if (device)
            device->ops->close(device);
        assert_int_equal(emulated_used(), 0);
        assert_true((device == NULL) == (code < 0));
    } while (came && nth < 1000);
    assert_int_equal(code, 0);
    assert_true(nth > 80); /* the events of the writes' slots alone are 64 calls */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_DEVICE(ranks_take_gpus_in_turn),
        ON_DEVICE(the_machine_is_described),
        cmocka_unit_test(machines_that_cannot_be_used),
        cmocka_unit_test(precisions_need_a_capability),
        cmocka_unit_test(tables_follow_the_precision),
        cmocka_unit_test(every_failure_of_opening),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
