/* ReLU, and the excitation that scales channels before a shortcut is added. Nothing is kept between calls. */
#include <math.h>
#include <string.h>

#include "reference.h"

int reference_relu(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *x = args->in[0];
    double *y = args->out[0];
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++)
        y[i] = x[i] < 0 ? 0 : x[i];
    return 0;
}

int reference_relu_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *y = args->in[0], *dy = args->in[1];
    double *dx = args->out[0];
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++)
        dx[i] = y[i] > 0 ? dy[i] : 0;
    return 0;
}

static double sigmoid(double z)
{
    return 1 / (1 + exp(-z));
}

/* Which element of z{n,1,1,c} element `i` of a feature map is scaled by. */
static int64_t gate_of(const tensor_desc *map, int64_t i)
{
    int64_t channels = map->dim[3], image = (int64_t)map->dim[1] * map->dim[2] * channels;
    return i / image * channels + i % channels;
}

int reference_excite(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *r = args->in[0], *z = args->in[1], *shortcut = args->in[2];
    double *y = args->out[0];
    const tensor_desc *map = &request->in[0];
    for (int64_t i = 0; i < tensor_count(map); i++) {
        double sum = r[i] * sigmoid(z[gate_of(map, i)]) + shortcut[i];
        y[i] = sum < 0 ? 0 : sum;
    }
    return 0;
}

int reference_excite_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *r = args->in[0], *z = args->in[1], *y = args->in[2], *dy = args->in[3];
    double *dr = args->out[0], *dz = args->out[1], *dshortcut = args->out[2];
    const tensor_desc *map = &request->in[0];
    if (dz)
        memset(dz, 0, tensor_bytes(&request->in[1]));
    for (int64_t i = 0; i < tensor_count(map); i++) {
        double g = y[i] > 0 ? dy[i] : 0, s = sigmoid(z[gate_of(map, i)]);
        if (dr)
            dr[i] = g * s;
        if (dz)
            dz[gate_of(map, i)] += g * r[i] * s * (1 - s);
        if (dshortcut)
            dshortcut[i] = g;
    }
    return 0;
}
