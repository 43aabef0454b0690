/* Owns convolutions and products that also give the sums for batch normalisation. Either a plan of cuDNN adds up what
 * it writes, or a kernel reads the layer's result again, whichever is faster on this GPU. Invariant: what was chosen
 * once for a shape is chosen again. One thread. */
#include "base/error.h"
#include "convolutions.h"
#include "cuda_backend.h"
#include "product_plan.h"

#include <math.h>
#include <stdlib.h>

enum { OFFSET_CONVOLUTION, OFFSET_SUM, OFFSET_SQUARE_SUM };

/* ---- in one ---- */

/* Two operands beside each other are the one that the convolution knows. */
static int weight_index(const kernel *k, const kernel_args *args)
{
    const tensor_desc *first = &k->request.in[0];
    if (k->request.node.op != OP_CONCAT_LINEAR)
        return 1;
    TRY(product_check_beside(args->in[0], args->in[1], first->dim[3], first->dtype));
    return 2;
}

static int fused_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    int weight = weight_index(k, args);
    TRY(weight);
    float *sum = cuda_workspace_at(args, k->offset[OFFSET_SUM]),
          *square_sum = cuda_workspace_at(args, k->offset[OFFSET_SQUARE_SUM]);
    TRY(cuda_convolution_run(k->plan, &(cuda_convolution_args){.x = kernel_in_out(args, 0),
                                                               .w = kernel_in_out(args, weight),
                                                               .y = args->out[0],
                                                               .sum = sum,
                                                               .square_sum = square_sum,
                                                               .workspace = cuda_workspace_at(args, k->offset[0])}));
    return cuda_widen_sums(self, sum, square_sum, k->request.out[0].dim[3], args->out[1]);
}

static void release_convolution(void *plan)
{
    cuda_convolution_release(plan);
}

static int prepare_fused(cuda_backend *self, kernel *k, const cuda_convolution_desc *desc, size_t *workspace)
{
    cuda_convolution *convolution;
    size_t bytes = 0, channel_bytes = (size_t)desc->out_channels * sizeof(float);
    TRY(cuda_convolution_prepare(self->convolutions, desc, &convolution, &bytes));
    k->plan = convolution;
    k->release_plan = release_convolution;
    k->offset[OFFSET_CONVOLUTION] = cuda_workspace_take(workspace, bytes);
    k->offset[OFFSET_SUM] = cuda_workspace_take(workspace, channel_bytes);
    k->offset[OFFSET_SQUARE_SUM] = cuda_workspace_take(workspace, channel_bytes);
    k->launch = fused_launch;
    return 0;
}

/* ---- apart ---- */

static int apart_launch(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const kernel *layer = k->plan;
    const tensor_desc *y = &k->request.out[0];
    TRY(layer->launch(self, layer, args));
    return cuda_channel_sums(self, args->out[0], y->dtype, tensor_rows(y), y->dim[3], args->out[1],
                             cuda_workspace_at(args, k->offset[OFFSET_SUM]));
}

static void release_apart(void *plan)
{
    kernel *layer = plan;
    if (layer->plan)
        layer->release_plan(layer->plan);
    free(layer);
}

/* The layer comes first in the workspace, and so finds its own where it expects it. */
static int prepare_apart(cuda_backend *self, kernel *k, cuda_prepare *alone, size_t *workspace)
{
    const tensor_desc *y = &k->request.out[0];
    kernel *layer = calloc(1, sizeof *layer);
    CHECK(layer, ERROR_MEMORY, "no memory for a layer");
    k->plan = layer;
    k->release_plan = release_apart;
    k->launch = apart_launch;
    layer->request = k->request;
    layer->request.out[1] = (tensor_desc){0};
    TRY(alone(self, layer, workspace));
    k->offset[OFFSET_SUM] = cuda_workspace_take(workspace, cuda_channel_sums_bytes(tensor_rows(y), y->dim[3]));
    return 0;
}

/* ---- the choice ---- */

static void drop_plan(kernel *k)
{
    if (k->plan)
        k->release_plan(k->plan);
    k->plan = NULL;
}

/* CUDA_SUMS_UNKNOWN where there is no memory to measure with. */
static int measure(cuda_backend *self, const kernel *k, const cuda_convolution_desc *desc, cuda_prepare *alone,
                   cuda_sums_way *way)
{
    kernel fused = *k, apart = *k;
    size_t fused_workspace = 0, apart_workspace = 0;
    *way = CUDA_SUMS_APART;
    if (prepare_fused(self, &fused, desc, &fused_workspace) < 0)
        return 0;
    int code = prepare_apart(self, &apart, alone, &apart_workspace);
    if (code == 0) {
        float fused_time = cuda_kernel_time(self, &fused, fused_workspace),
              apart_time = cuda_kernel_time(self, &apart, apart_workspace);
        if (isnan(fused_time) || isnan(apart_time))
            *way = CUDA_SUMS_UNKNOWN;
        else if (fused_time < apart_time)
            *way = CUDA_SUMS_FUSED;
    }
    drop_plan(&fused);
    drop_plan(&apart);
    return code;
}

int cuda_layer_sums_prepare(cuda_backend *self, kernel *k, const cuda_convolution_desc *desc, cuda_prepare *alone,
                            size_t *workspace)
{
    cuda_sums_way way = desc ? cuda_sums_way_known(self->convolutions, desc) : CUDA_SUMS_APART;
    if (way == CUDA_SUMS_UNKNOWN) {
        TRY(measure(self, k, desc, alone, &way));
        if (way != CUDA_SUMS_UNKNOWN)
            cuda_sums_way_keep(self->convolutions, desc, way);
    }
    if (way == CUDA_SUMS_FUSED && prepare_fused(self, k, desc, workspace) == 0)
        return 0;
    return prepare_apart(self, k, alone, workspace);
}
