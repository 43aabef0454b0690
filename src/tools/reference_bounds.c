/* Owns the bounds of the comparison. Pure functions; one thread.
 *
 * Float64 is held to 1e-9. Every other precision is held to four times what PyTorch itself loses in it on the same
 * problem (but not below 1e-6). The file gives that for whole groups: a ReLU unit near zero that falls on the other
 * side moves gradients by far more than rounding, and every later step inherits it. In 16 bits so many units do that
 * what is pooled over a whole network varies little, and two times are enough. A single loss or head after a step is
 * one draw of something that varies by itself.
 *
 * Where a file only has PyTorch's error in float32, that of coarser precisions is taken to be larger by the ratio of
 * their rounding errors. For gradients this law does not hold. In float32 hardly a unit falls on the other side; in 16
 * bits a share of the size of an op's error does, layer by layer. The gradient's error is the root of that share.
 */
#include "tools/reference_bounds.h"
#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ERRORS_MAX = 64 };

static const double slack = 4, slack_pooled_16bit = 2, least = 1e-6, rounding_f32 = 0x1p-24,
                    deep = 16; /* ReLUs that follow one another */

static bool is_16bit(const backend *device)
{
    return device->ops->activation == DTYPE_F16 || device->ops->activation == DTYPE_BF16;
}

/* Products round their operands to fewer bits than float32 has. */
static bool is_coarse(const backend *device)
{
    return is_16bit(device) || device->ops->op_error > 1e-4;
}

static bool is_single_draw(const char *dataset)
{
    return strcmp(dataset, "losses") == 0 || strcmp(dataset, "eval_logits") == 0;
}

/* Of an operand of a product; TF32 has float16's fraction. */
static double rounding(const backend *device)
{
    return device->ops->activation == DTYPE_BF16 ? 0x1p-8 : is_coarse(device) ? 0x1p-11 : rounding_f32;
}

static const char *own_group(const backend *device)
{
    switch (device->ops->activation) {
    case DTYPE_F16:
        return "float16_error";
    case DTYPE_BF16:
        return "bfloat16_error";
    default:
        return "float32_error";
    }
}

int compare_bound(const reference_file *file, const backend *device, const char *dataset, int count, int index,
                  double *bound)
{
    double errors[ERRORS_MAX];
    char path[96];
    *bound = 1e-9;
    if (device->ops->real == DTYPE_F64)
        return 0;
    const char *group = reference_has(file, own_group(device), dataset) ? own_group(device) : "float32_error";
    bool scaled = is_coarse(device) && strcmp(group, "float32_error") == 0;
    snprintf(path, sizeof path, "%s/%s", group, dataset);
    CHECK(count <= ERRORS_MAX, ERROR_FILE, "%s: more than %d steps", file->path, ERRORS_MAX);
    TRY(reference_read(file, path, count, errors));
    bool tight = !scaled && is_16bit(device) && !is_single_draw(dataset);
    double factor = scaled ? slack * rounding(device) / rounding_f32 : tight ? slack_pooled_16bit : slack;
    *bound = fmax(factor * errors[index], least);
    if (scaled && strcmp(dataset, "gradients") == 0)
        *bound = fmax(*bound, sqrt(deep * device->ops->op_error));
    return 0;
}
