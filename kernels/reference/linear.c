/* Linear layers: matrix products over the channels. A weight is a row-major matrix [O, K], whatever its layout.
 * Nothing is kept between calls. */
#include <string.h>

#include "reference.h"

static blas_matrix plain(const double *value, int stride)
{
    return (blas_matrix){value, stride, false};
}

static blas_matrix transposed(const double *value, int stride)
{
    return (blas_matrix){value, stride, true};
}

static int channels(const tensor_desc *t)
{
    return t->dim[3];
}

static int rows(const tensor_desc *t)
{
    return (int)tensor_rows(t);
}

void reference_bias_grad(const tensor_desc *dy_desc, const double *dy, double *dbias)
{
    int c_count = channels(dy_desc);
    memset(dbias, 0, (size_t)c_count * sizeof *dbias);
    for (int64_t row = 0; row < tensor_rows(dy_desc); row++)
        for (int c = 0; c < c_count; c++)
            dbias[c] += dy[row * c_count + c];
}

int reference_linear(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const double *x = args->in[0], *w = args->in[1], *bias = args->in[2];
    double *y = args->out[0];
    int m = rows(&request->in[0]), k = channels(&request->in[0]), o = channels(&request->out[0]);
    blas_multiply(&self->blas, m, o, k, plain(x, k), transposed(w, k), 0.0, y, o);
    for (int64_t row = 0; bias && row < m; row++)
        for (int c = 0; c < o; c++)
            y[row * o + c] += bias[c];
    return 0;
}

int reference_linear_dgrad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    int m = rows(&request->in[0]), o = channels(&request->in[0]), k = channels(&request->out[0]);
    blas_multiply(&self->blas, m, k, o, plain(args->in[0], o), plain(args->in[1], k), 0.0, args->out[0], k);
    return 0;
}

int reference_linear_wgrad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    int m = rows(&request->in[0]), k = channels(&request->in[0]), o = channels(&request->in[1]);
    if (args->out[0])
        blas_multiply(&self->blas, o, k, m, transposed(args->in[1], o), plain(args->in[0], k), 0.0, args->out[0], k);
    if (args->out[1])
        reference_bias_grad(&request->in[1], args->in[1], args->out[1]);
    return 0;
}

int reference_concat_linear(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const double *a = args->in[0], *b = args->in[1], *w = args->in[2];
    double *y = args->out[0];
    int ka = channels(&request->in[0]), kb = channels(&request->in[1]), k = ka + kb;
    int m = rows(&request->in[0]), o = channels(&request->out[0]);
    blas_multiply(&self->blas, m, o, ka, plain(a, ka), transposed(w, k), 0.0, y, o);
    blas_multiply(&self->blas, m, o, kb, plain(b, kb), transposed(w + ka, k), 1.0, y, o);
    if (args->out[1])
        reference_channel_sums(&request->out[0], y, args->out[1]);
    return 0;
}

int reference_concat_linear_dgrad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const double *dy = args->in[0], *w = args->in[1];
    double *da = args->out[0], *db = args->out[1];
    int m = rows(&request->in[0]), o = channels(&request->in[0]);
    int k = (int)(tensor_count(&request->in[1]) / o);
    int ka = da ? channels(&request->out[0]) : k - channels(&request->out[1]), kb = k - ka;
    if (da)
        blas_multiply(&self->blas, m, ka, o, plain(dy, o), plain(w, k), 0.0, da, ka);
    if (db)
        blas_multiply(&self->blas, m, kb, o, plain(dy, o), plain(w + ka, k), 0.0, db, kb);
    return 0;
}

int reference_concat_linear_wgrad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    const double *a = args->in[0], *b = args->in[1], *dy = args->in[2];
    double *dw = args->out[0];
    int ka = channels(&request->in[0]), kb = channels(&request->in[1]), k = ka + kb;
    int m = rows(&request->in[0]), o = channels(&request->in[2]);
    blas_multiply(&self->blas, o, ka, m, transposed(dy, o), plain(a, ka), 0.0, dw, k);
    blas_multiply(&self->blas, o, kb, m, transposed(dy, o), plain(b, kb), 0.0, dw + ka, k);
    return 0;
}
