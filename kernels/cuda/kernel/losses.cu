/* Losses, their gradients and the counts of right answers, one node per launch; a loss needs a second one that adds up
 * the images in a fixed order. batched_losses.cu does many nodes at once. */
#include "losses.cuh"

template <typename T> __global__ void __launch_bounds__(LOSS_THREADS, 8) loss_kernel(loss_entry e)
{
    do_image<T>(e, (int)blockIdx.x);
}

static __global__ void __launch_bounds__(LOSS_THREADS) loss_sums_kernel(loss_entry e)
{
    sum_images(e);
}

/* How many lists of values an op adds up. */
static int lists_of(unsigned op)
{
    switch (op) {
    case OP_CROSS_ENTROPY:
    case OP_KD_LOSS:
    case OP_FEATURE_LOSS:
        return 1;
    case OP_TOP_K:
        return 2;
    default:
        return 0;
    }
}

static double scale_of(const graph_node &node)
{
    const op_attr &a = node.attr;
    return node.op == OP_CROSS_ENTROPY ? 1 / a.count
           : node.op == OP_KD_LOSS     ? a.temperature * a.temperature / a.count
                                       : 1;
}

/* The factor of a gradient without the loss scale; for distillation T^2 of the loss and 1/T of the logits. */
static double weight_of(const graph_node &node)
{
    const op_attr &a = node.attr;
    return node.op == OP_CROSS_ENTROPY_GRAD ? a.weight / a.count
           : node.op == OP_KD_LOSS_GRAD     ? a.weight * a.temperature / a.count
                                            : 2 * a.weight;
}

static bool has_target(unsigned op)
{
    return op == OP_CROSS_ENTROPY || op == OP_CROSS_ENTROPY_GRAD || op == OP_TOP_K;
}

loss_entry loss_entry_of(const kernel *k, const kernel_args *args)
{
    const graph_node &node = k->request.node;
    const tensor_desc *x = &k->request.in[0];
    loss_entry e = {};
    e.op = node.op;
    e.columns = x->dim[3];
    e.images = (int)tensor_rows(x);
    e.lists = lists_of(node.op);
    e.first = args->in[0];
    if (has_target(node.op))
        e.target = (const int32_t *)args->in[1];
    else
        e.second = args->in[1];
    e.scaling = (const float *)args->in[2];
    if (e.lists) {
        e.sums = (double *)args->out[0];
    } else {
        e.grad = args->out[0];
        e.second_grad = args->out[1];
    }
    e.weight = weight_of(node);
    e.smoothing = node.attr.smoothing;
    e.temperature = node.attr.temperature;
    e.scale = scale_of(node);
    return e;
}

int cuda_loss_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    size_t values = (size_t)lists_of(k->request.node.op) * (size_t)tensor_rows(&k->request.in[0]);
    if (values)
        k->offset[0] = cuda_workspace_take(workspace, values * sizeof(double));
    return 0;
}

int cuda_loss(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    loss_entry e = loss_entry_of(k, args);
    if (e.lists)
        e.values = (double *)cuda_workspace_at(args, k->offset[0]);
    TRY(with_type(k->request.in[0].dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(loss_kernel<T>, dim3((unsigned)e.images), dim3(LOSS_THREADS), 0, self->stream, e);
    }));
    return e.lists ? launch(loss_sums_kernel, dim3(1), dim3(LOSS_THREADS), 0, self->stream, e) : 0;
}
