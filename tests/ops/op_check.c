/* Owns the memory of a launch under test. Invariant: a buffer is GUARD bytes, the tensor, GUARD bytes, and nothing
 * but the tensor may change. One thread. */
#include "op_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/sixteen_bit.h"
#include "op_cases.h"

enum { GUARD = 64, GUARD_BYTE = 0xA5, POISON_BYTE = 0xFF /* all ones is a NaN */ };

/* ---- guarded memory ---- */

typedef struct {
    unsigned char *device; /* GUARD, size bytes, GUARD */
    unsigned char *memory; /* the same on the host, as it is before the launch and then after it */
    unsigned char *copy;   /* what the tensor held before the launch */
    size_t size;
} guarded;

static void guarded_init(guarded *g, backend *b, size_t size)
{
    g->size = size;
    g->device = b->ops->alloc(b, size + 2 * GUARD);
    if (!g->device)
        fail_msg("the backend has no memory for %zu bytes", size);
    g->memory = test_alloc(size + 2 * GUARD);
    g->copy = test_alloc(size);
    memset(g->memory, GUARD_BYTE, size + 2 * GUARD);
    memset(g->memory + GUARD, POISON_BYTE, size);
}

static void *guarded_data(const guarded *g)
{
    return g->memory ? g->memory + GUARD : NULL;
}

static void *guarded_address(const guarded *g)
{
    return g->device ? g->device + GUARD : NULL;
}

static void guarded_send(const guarded *g, backend *b)
{
    if (g->device && b->ops->write(b, g->device, g->memory, g->size + 2 * GUARD) < 0)
        fail_msg("%s", error_message());
}

static void guarded_fetch(const guarded *g, backend *b)
{
    if (g->device && b->ops->read(b, g->memory, g->device, g->size + 2 * GUARD) < 0)
        fail_msg("%s", error_message());
}

static void guarded_check(const guarded *g, bool constant, const char *role, int index, const char *name)
{
    for (size_t i = 0; i < GUARD; i++) {
        if (g->memory[i] != GUARD_BYTE)
            fail_msg("%s: wrote %zu bytes before %s %d", name, GUARD - i, role, index);
        if (g->memory[GUARD + g->size + i] != GUARD_BYTE)
            fail_msg("%s: wrote %zu bytes past the end of %s %d", name, i + 1, role, index);
    }
    if (constant && memcmp(g->memory + GUARD, g->copy, g->size) != 0)
        fail_msg("%s: changed %s %d", name, role, index);
}

static void guarded_free(guarded *g, backend *b)
{
    if (g->device)
        b->ops->free(b, g->device);
    free(g->memory);
    free(g->copy);
}

/* Where element `i` lies in memory: a feature map may have its positions in patch order. */
static int64_t position(const tensor_desc *t, int64_t i)
{
    return t->patch ? tensor_row(t, i / t->dim[3]) * t->dim[3] + i % t->dim[3] : i;
}

static void store(const test_tensor *t, const guarded *g)
{
    for (int64_t i = 0; i < tensor_count(&t->desc); i++) {
        int64_t at = position(&t->desc, i);
        switch (t->desc.dtype) {
        case DTYPE_F32:
            ((float *)guarded_data(g))[at] = (float)t->real[i];
            break;
        case DTYPE_F64:
            ((double *)guarded_data(g))[at] = t->real[i];
            break;
        case DTYPE_F16:
            ((uint16_t *)guarded_data(g))[at] = float16_from((float)t->real[i]);
            break;
        case DTYPE_BF16:
            ((uint16_t *)guarded_data(g))[at] = bfloat16_from((float)t->real[i]);
            break;
        case DTYPE_U8:
            ((uint8_t *)guarded_data(g))[at] = (uint8_t)t->integer[i];
            break;
        default:
            ((int32_t *)guarded_data(g))[at] = t->integer[i];
        }
    }
    memcpy(g->copy, guarded_data(g), g->size);
}

static double element(const guarded *g, uint8_t type, int64_t i)
{
    switch (type) {
    case DTYPE_F32:
        return (double)((float *)guarded_data(g))[i];
    case DTYPE_F16:
        return (double)float16_value(((uint16_t *)guarded_data(g))[i]);
    case DTYPE_BF16:
        return (double)bfloat16_value(((uint16_t *)guarded_data(g))[i]);
    case DTYPE_U8: /* no byte of a result is 255 */
        return ((uint8_t *)guarded_data(g))[i] == POISON_BYTE ? (double)NAN : ((uint8_t *)guarded_data(g))[i];
    default:
        return ((double *)guarded_data(g))[i];
    }
}

static double *load(const tensor_desc *desc, const guarded *g, const char *name, int index)
{
    int64_t count = tensor_count(desc);
    double *value = test_alloc((size_t)count * sizeof *value);
    for (int64_t i = 0; i < count; i++) {
        value[i] = element(g, desc->dtype, position(desc, i));
        if (!isfinite(value[i]))
            fail_msg("%s: element %lld of output %d is not a number, or was not written", name, (long long)i, index);
    }
    return value;
}

/* ---- a launch ---- */

void op_launch(backend *b, kernel *k, const kernel_request *r, size_t workspace_bytes,
               const test_tensor in[NODE_MAX_IN], int in_place, const char *name, op_result *result)
{
    guarded inputs[NODE_MAX_IN] = {0}, outputs[NODE_MAX_OUT] = {0}, workspace = {0};
    kernel_args args = {0};
    *result = (op_result){0};
    for (int i = 0; i < r->node.n_in; i++)
        if (tensor_count(&r->in[i])) {
            guarded_init(&inputs[i], b, tensor_bytes(&r->in[i]));
            store(&in[i], &inputs[i]);
            args.in[i] = guarded_address(&inputs[i]);
        }
    for (int i = 0; i < r->node.n_out; i++)
        if (tensor_count(&r->out[i]) && !(i == 0 && in_place >= 0)) {
            guarded_init(&outputs[i], b, tensor_bytes(&r->out[i]));
            args.out[i] = guarded_address(&outputs[i]);
        }
    if (in_place >= 0)
        args.out[0] = guarded_address(&inputs[in_place]);
    guarded_init(&workspace, b, workspace_bytes);
    args.workspace = guarded_address(&workspace);

    guarded *const buffers[] = {inputs, outputs, &workspace};
    const int counts[] = {NODE_MAX_IN, NODE_MAX_OUT, 1};
    for (int i = 0; i < 3; i++)
        for (int n = 0; n < counts[i]; n++)
            guarded_send(&buffers[i][n], b);
    if (b->ops->launch(b, k, &args) < 0)
        fail_msg("%s: %s", name, error_message());
    for (int i = 0; i < 3; i++)
        for (int n = 0; n < counts[i]; n++)
            guarded_fetch(&buffers[i][n], b);

    guarded_check(&workspace, false, "workspace", 0, name);
    for (int i = 0; i < NODE_MAX_IN; i++) {
        if (!inputs[i].memory)
            continue;
        bool changes = i == in_place || op_changes_input(r->node.op, i);
        guarded_check(&inputs[i], !changes, "input", i, name);
        if (op_changes_input(r->node.op, i))
            result->in[i] = load(&r->in[i], &inputs[i], name, i);
    }
    for (int i = 0; i < NODE_MAX_OUT; i++) {
        if (outputs[i].memory)
            guarded_check(&outputs[i], false, "output", i, name);
        if (args.out[i])
            result->out[i] = load(&r->out[i], i == 0 && in_place >= 0 ? &inputs[in_place] : &outputs[i], name, i);
    }
    for (int i = 0; i < NODE_MAX_IN; i++)
        guarded_free(&inputs[i], b);
    for (int i = 0; i < NODE_MAX_OUT; i++)
        guarded_free(&outputs[i], b);
    guarded_free(&workspace, b);
}

void op_result_free(op_result *result)
{
    for (int i = 0; i < NODE_MAX_OUT; i++)
        free(result->out[i]);
    for (int i = 0; i < NODE_MAX_IN; i++)
        free(result->in[i]);
}

/* ---- against the reference ---- */

static void compare(const double *got, const double *expected, int64_t count, double bound, const char *role, int index,
                    const char *name)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; got && i < count; i++) {
        difference += (got[i] - expected[i]) * (got[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    if (sqrt(difference) > bound * sqrt(norm))
        fail_msg("%s: %s %d is off by %.3g relative, more than %.3g", name, role, index, sqrt(difference / norm),
                 bound);
}

static kernel *prepare(backend *b, const kernel_request *r, size_t *workspace_bytes, const char *name)
{
    kernel *k = NULL;
    if (b->ops->prepare(b, r, &k, workspace_bytes) < 0)
        fail_msg("%s: %s", name, error_message());
    return k;
}

void op_check_request(backend *tested, backend *reference, const kernel_request *tested_request,
                      const kernel_request *reference_request, int in_place, double bound, const char *name)
{
    size_t tested_bytes = 0, reference_bytes = 0;
    kernel *a = prepare(tested, tested_request, &tested_bytes, name);
    kernel *b = prepare(reference, reference_request, &reference_bytes, name);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        test_tensor in[NODE_MAX_IN], exact[NODE_MAX_IN];
        op_result got, expected;
        op_inputs_init(in, tested_request, seed);
        memcpy(exact, in, sizeof exact);
        for (int i = 0; i < NODE_MAX_IN; i++)
            exact[i].desc = reference_request->in[i];
        op_launch(tested, a, tested_request, tested_bytes, in, in_place, name, &got);
        op_launch(reference, b, reference_request, reference_bytes, exact, -1, name, &expected);
        for (int i = 0; i < NODE_MAX_OUT; i++)
            compare(got.out[i], expected.out[i], tensor_count(&tested_request->out[i]),
                    tested_request->out[i].dtype == DTYPE_U8 ? 0 : bound, "output", i, name);
        for (int i = 0; i < NODE_MAX_IN; i++)
            compare(got.in[i], expected.in[i], tensor_count(&tested_request->in[i]), bound, "input", i, name);
        op_result_free(&got);
        op_result_free(&expected);
        op_inputs_free(in);
    }
    tested->ops->release(tested, a);
    reference->ops->release(reference, b);
}

bool op_in_patches(kernel_request *r, int32_t patch)
{
    enum { FIRST_GRADIENT = 5 };
    bool writes = r->node.op == OP_BN_NORMALIZE || r->node.op == OP_BN_INFERENCE;
    bool reads = r->node.op == OP_BN_GRAD_SUMS || r->node.op == OP_BN_GRAD;
    if (!(writes || reads) || r->in[0].dim[1] % patch || r->in[0].dim[2] % patch)
        return false;
    if (writes)
        r->out[0].patch = patch;
    for (int i = FIRST_GRADIENT; i < r->node.n_in && reads; i += 2) /* the others stay by lines */
        r->in[i].patch = patch;
    return true;
}

int op_check_patches(backend *tested, backend *reference, double bound)
{
    int checked = 0;
    for (int row = 0; row < layer_case_count; row++) {
        kernel_request a[LAYER_MAX_OPS], b[LAYER_MAX_OPS];
        int count = layer_requests(&layer_cases[row], tested->ops->activation, a);
        layer_requests(&layer_cases[row], reference->ops->activation, b);
        for (int i = 0; i < count; i++)
            for (int32_t patch = 2; patch <= 8; patch *= 2) {
                char name[192];
                if (!op_in_patches(&a[i], patch))
                    continue;
                layer_describe(&layer_cases[row], op_case_name(a[i].node.op), name, sizeof name);
                strncat(name, " in patches", sizeof name - strlen(name) - 1);
                op_check_request(tested, reference, &a[i], &b[i], -1, bound, name);
                checked++;
            }
    }
    return checked;
}

/* One more output, present. */
static void set_output(kernel_request *r, int index, tensor_desc desc)
{
    r->out[index] = desc;
    r->node.out[index] = r->node.out[0] + (value_id)index;
    r->node.n_out = (uint8_t)(index + 1);
}

bool op_fused(kernel_request *r)
{
    tensor_desc sums = {
        .dim = {1, 1, 2, r->out[0].dim[3]}, .dtype = DTYPE_F64, .layout = LAYOUT_C, .kind = KIND_ACTIVATION};
    tensor_desc choice = r->node.op == OP_MAX_POOL ? r->out[0] : r->in[1];
    choice.dtype = DTYPE_U8;
    switch (r->node.op) {
    case OP_CONV2D:
        if (tensor_count(&r->in[2]) > 0)
            return false;
        set_output(r, 1, sums);
        return true;
    case OP_CONCAT_LINEAR:
        set_output(r, 1, sums);
        return true;
    case OP_MAX_POOL:
        set_output(r, 1, choice);
        return true;
    case OP_BN_GRAD_SUMS:
    case OP_UPSAMPLE_BN_GRAD_SUMS:
        set_output(r, 2, r->in[2]);
        set_output(r, 3, r->in[3]);
        return true;
    case OP_LINEAR_BN_GRAD_SUMS:
        set_output(r, 2, r->in[1]);
        set_output(r, 3, r->in[1]);
        return true;
    case OP_MAX_POOL_GRAD:
        r->in[0] = (tensor_desc){0};
        r->node.in[0] = VALUE_NONE;
        r->in[2] = choice;
        r->node.in[2] = r->node.in[1] + 1;
        r->node.n_in = 3;
        return true;
    default:
        return false;
    }
}

int op_check_fused(backend *tested, backend *reference, unsigned op, double bound)
{
    int checked = 0;
    for (int row = 0; row < layer_case_count; row++) {
        kernel_request a[LAYER_MAX_OPS], b[LAYER_MAX_OPS];
        int count = layer_requests(&layer_cases[row], tested->ops->activation, a);
        layer_requests(&layer_cases[row], reference->ops->activation, b);
        for (int i = 0; i < count; i++) {
            char name[192];
            if (a[i].node.op != op || !op_fused(&a[i]) || !op_fused(&b[i]))
                continue;
            layer_describe(&layer_cases[row], op_case_name(op), name, sizeof name);
            strncat(name, " fused", sizeof name - strlen(name) - 1);
            op_check_request(tested, reference, &a[i], &b[i], -1, bound, name);
            checked++;
        }
    }
    return checked;
}

void op_check_all(backend *tested, backend *reference, double bound)
{
    op_check_some(tested, reference, bound, NULL);
}

void op_check_some(backend *tested, backend *reference, double bound, bool (*wanted)(unsigned op))
{
    for (int row = 0; row < layer_case_count; row++) {
        kernel_request a[LAYER_MAX_OPS], b[LAYER_MAX_OPS];
        int count = layer_requests(&layer_cases[row], tested->ops->activation, a);
        layer_requests(&layer_cases[row], reference->ops->activation, b);
        for (int i = 0; i < count; i++) {
            char name[192];
            int in_place = op_case_in_place(a[i].node.op);
            if (wanted && !wanted(a[i].node.op))
                continue;
            layer_describe(&layer_cases[row], op_case_name(a[i].node.op), name, sizeof name);
            op_check_request(tested, reference, &a[i], &b[i], -1, bound, name);
            if (in_place >= 0) {
                strncat(name, " in place", sizeof name - strlen(name) - 1);
                op_check_request(tested, reference, &a[i], &b[i], in_place, bound, name);
            }
        }
    }
}
