/* The optimiser: SGD with momentum. Changes the weight and its momentum where they are. */
#include "reference.h"

int reference_sgd_update(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    double *w = kernel_in_out(args, 0), *v = kernel_in_out(args, 1);
    const double *dw = args->in[2], *lr = args->in[3];
    const op_attr *attr = &request->node.attr;
    double decay = attr->decay ? attr->weight_decay : 0;
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++) {
        double g = dw[i] + decay * w[i];
        v[i] = attr->momentum * v[i] + g;
        w[i] -= *lr * (attr->nesterov ? g + attr->momentum * v[i] : v[i]);
    }
    return 0;
}
