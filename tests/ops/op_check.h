/* Runs one op on a backend between sentinels, and compares it with the reference. Test code: failures end the test
 * through cmocka with the case in the message. */
#ifndef TESKD_TESTS_OP_CHECK_H
#define TESKD_TESTS_OP_CHECK_H

#include "kernels/backend.h"

/* Values of a tensor in float64, or int32 for targets. */
typedef struct {
    tensor_desc desc;
    double *real;
    int32_t *integer;
} test_tensor;

/* Random inputs that make sense for the op: positive variances, sums that belong to a mean and a variance, classes in
 * range, no ReLU at its kink. Rounded to the dtype that `request` says. Absent inputs have NULL. */
void op_inputs_init(test_tensor in[NODE_MAX_IN], const kernel_request *request, uint64_t seed);
void op_inputs_free(test_tensor in[NODE_MAX_IN]);

/* Uniform numbers of variance 1, a pure function of seed. */
void fill_random(double *value, int64_t count, uint64_t seed);

void *test_alloc(size_t bytes);

/* The numbers of a launch: outputs, or for side-effect ops the inputs they changed. Absent ones have NULL. */
typedef struct {
    double *out[NODE_MAX_OUT];
    double *in[NODE_MAX_IN];
} op_result;
void op_result_free(op_result *result);

/* Launches a prepared kernel on its own guarded memory. Every buffer lies between guard bytes, outputs and workspace
 * are filled with NaN before; afterwards the guards and the inputs must be as before, and no output may be NaN.
 * in_place >= 0: output 0 is the memory of that input. */
void op_launch(backend *b, kernel *k, const kernel_request *request, size_t workspace_bytes,
               const test_tensor in[NODE_MAX_IN], int in_place, const char *name, op_result *result);

/* Runs one op on both backends twice (other data, same kernel) and compares: relative L2 of each output below `bound`.
 * The requests differ in dtypes only. in_place as above. */
void op_check_request(backend *tested, backend *reference, const kernel_request *tested_request,
                      const kernel_request *reference_request, int in_place, double bound, const char *name);

/* Runs every op of every layer case on `tested` twice (other data, same kernel), each also in place where ops.def
 * allows it, and compares with `reference`: relative L2 of each output below `bound`. */
void op_check_all(backend *tested, backend *reference, double bound);

/* Puts the feature maps that batch normalisation may find in patches into patches of that size; false if impossible. */
bool op_in_patches(kernel_request *r, int32_t patch);

/* Asks a convolution without bias for the sums of its result, and batch normalisation's gradient sums for those of its
 * parameters. Asks a max_pool for its choices, and its gradient to go by them. False where the request is none. */
bool op_fused(kernel_request *r);

/* Every case with such results, for a backend that fuses, of one op; returns how many. */
int op_check_fused(backend *tested, backend *reference, unsigned op, double bound);

/* Batch normalisation of feature maps in patch order, for a backend with placed_rows; returns how many cases. */
int op_check_patches(backend *tested, backend *reference, double bound);

/* The same for the ops that `wanted` answers true for. */
void op_check_some(backend *tested, backend *reference, double bound, bool (*wanted)(unsigned op));

#endif
