/* Losses, their gradients and the counts of right answers. One block a picture, in double; a picture's loss goes to the
 * workspace, and one block adds those in a fixed order. A class out of range makes its loss and gradient NaN and its
 * answer wrong: a kernel cannot refuse. */
#include "reduce.cuh"

static constexpr int LOSS_THREADS = 128;
static constexpr int64_t SUM_PARTS = 512;

static constexpr double kd_floor = 1e-7; /* the loss adds it to the teacher's probabilities */

/* log of sum exp(z/T), shifted by the largest z so that nothing overflows. For all threads of the block. */
template <typename T> __device__ static inline double log_partition(const T *z, int classes, double temperature)
{
    double top = -INFINITY, sum = 0;
    for (int j = (int)threadIdx.x; j < classes; j += LOSS_THREADS) {
        double value = (double)to_float(z[j]);
        top = larger()(top, value);
    }
    top = block_largest(top);
    for (int j = (int)threadIdx.x; j < classes; j += LOSS_THREADS)
        sum += exp(((double)to_float(z[j]) - top) / temperature);
    return top / temperature + log(block_sum(sum));
}

__device__ static inline bool is_class(int target, int classes)
{
    return target >= 0 && target < classes;
}

/* The weight of a gradient, times the loss scale where there is one. */
__device__ static inline double scaled(double weight, const float *scaling)
{
    return scaling ? weight * (double)*scaling : weight;
}

/* ---- cross entropy ---- */

template <typename T>
__global__ void __launch_bounds__(LOSS_THREADS, 8)
    cross_entropy_kernel(const T *logits, const int32_t *target, int classes, double smoothing, double *loss)
{
    const T *z = logits + (int64_t)blockIdx.x * classes;
    const int right = target[blockIdx.x];
    double partition = log_partition(z, classes, 1), sum = 0;
    for (int j = (int)threadIdx.x; j < classes && smoothing > 0; j += LOSS_THREADS)
        sum += (double)to_float(z[j]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        double own = is_class(right, classes) ? (double)to_float(z[right]) : (double)NAN;
        loss[blockIdx.x] = partition - (1 - smoothing) * own - smoothing / classes * sum;
    }
}

template <typename T>
__global__ void __launch_bounds__(LOSS_THREADS, 8)
    cross_entropy_grad_kernel(const T *logits, const int32_t *target, const float *scaling, int classes,
                              double smoothing, double weight, T *grad)
{
    const int64_t first = (int64_t)blockIdx.x * classes;
    const int right = target[blockIdx.x];
    const double partition = log_partition(logits + first, classes, 1);
    const double everywhere = smoothing / classes;
    const double own_scale = is_class(right, classes) ? scaled(weight, scaling) : (double)NAN;
    for (int j = (int)threadIdx.x; j < classes; j += LOSS_THREADS) {
        double t = (j == right ? 1 - smoothing : 0) + everywhere;
        double value = own_scale * (exp((double)to_float(logits[first + j]) - partition) - t);
        from_float((float)value, grad[first + j]);
    }
}

/* Room for a number (top_k: two) a picture, or for the parts of a sum. */
int cuda_loss_prepare(cuda_backend *self, kernel *k, size_t *workspace)
{
    (void)self;
    size_t pictures = (size_t)tensor_rows(&k->request.in[0]), values = 0;
    unsigned op = k->request.node.op;
    if (op == OP_CROSS_ENTROPY || op == OP_KD_LOSS)
        values = pictures;
    else if (op == OP_TOP_K)
        values = 2 * pictures;
    else if (op == OP_FEATURE_LOSS)
        values = (size_t)SUM_PARTS;
    if (values)
        k->offset[0] = cuda_workspace_take(workspace, values * sizeof(double));
    return 0;
}

static double *loss_values(const kernel *k, const kernel_args *args)
{
    return (double *)cuda_workspace_at(args, k->offset[0]);
}

int cuda_cross_entropy(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    const op_attr *attr = &k->request.node.attr;
    double *values = loss_values(k, args);
    TRY(with_type(x->dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(cross_entropy_kernel<T>, dim3((unsigned)tensor_rows(x)), dim3(LOSS_THREADS), 0, self->stream,
                      (const T *)args->in[0], (const int32_t *)args->in[1], x->dim[3], attr->smoothing, values);
    }));
    return sum_lists(self, 1, values, tensor_rows(x), 1 / attr->count, NULL, (double *)args->out[0]);
}

int cuda_cross_entropy_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    const op_attr *attr = &k->request.node.attr;
    return with_type(x->dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(cross_entropy_grad_kernel<T>, dim3((unsigned)tensor_rows(x)), dim3(LOSS_THREADS), 0, self->stream,
                      (const T *)args->in[0], (const int32_t *)args->in[1], (const float *)args->in[2], x->dim[3],
                      attr->smoothing, attr->weight / attr->count, (T *)args->out[0]);
    });
}

/* ---- distillation ---- */

template <typename T>
__global__ void __launch_bounds__(LOSS_THREADS, 8)
    kd_loss_kernel(const T *student, const T *teacher, int classes, double temperature, double *loss)
{
    const T *zs = student + (int64_t)blockIdx.x * classes, *zt = teacher + (int64_t)blockIdx.x * classes;
    const double of_student = log_partition(zs, classes, temperature);
    const double of_teacher = log_partition(zt, classes, temperature);
    double sum = 0;
    for (int j = (int)threadIdx.x; j < classes; j += LOSS_THREADS) {
        double q = exp((double)to_float(zt[j]) / temperature - of_teacher) + kd_floor;
        sum += q * (log(q) - ((double)to_float(zs[j]) / temperature - of_student));
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        loss[blockIdx.x] = sum;
}

/* With p and s the softmaxes of student and teacher and q = s + floor, sum q (log q - log p) has the gradients
 * d/dz_student = (p * sum q - q)/T and, with a = log q - log p + 1, d/dz_teacher = s (a - sum s a)/T. */
template <typename T>
__global__ void __launch_bounds__(LOSS_THREADS, 8)
    kd_loss_grad_kernel(const T *student, const T *teacher, const float *scaling, int classes, double temperature,
                        double weight, T *dstudent, T *dteacher)
{
    const double scale = scaled(weight, scaling);
    const int64_t first = (int64_t)blockIdx.x * classes;
    const double of_student = log_partition(student + first, classes, temperature);
    const double of_teacher = log_partition(teacher + first, classes, temperature);
    double sum_q = 0, sum_sa = 0;
    for (int j = (int)threadIdx.x; j < classes; j += LOSS_THREADS) {
        double s = exp((double)to_float(teacher[first + j]) / temperature - of_teacher);
        double log_p = (double)to_float(student[first + j]) / temperature - of_student;
        sum_q += s + kd_floor;
        sum_sa += s * (log(s + kd_floor) - log_p + 1);
    }
    sum_q = block_sum(sum_q);
    sum_sa = block_sum(sum_sa);
    for (int j = (int)threadIdx.x; j < classes; j += LOSS_THREADS) {
        double s = exp((double)to_float(teacher[first + j]) / temperature - of_teacher);
        double log_p = (double)to_float(student[first + j]) / temperature - of_student;
        if (dstudent)
            from_float((float)(scale * (exp(log_p) * sum_q - (s + kd_floor))), dstudent[first + j]);
        if (dteacher)
            from_float((float)(scale * s * (log(s + kd_floor) - log_p + 1 - sum_sa)), dteacher[first + j]);
    }
}

int cuda_kd_loss(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    const op_attr *attr = &k->request.node.attr;
    double *values = loss_values(k, args), scale = attr->temperature * attr->temperature / attr->count;
    TRY(with_type(x->dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(kd_loss_kernel<T>, dim3((unsigned)tensor_rows(x)), dim3(LOSS_THREADS), 0, self->stream,
                      (const T *)args->in[0], (const T *)args->in[1], x->dim[3], attr->temperature, values);
    }));
    return sum_lists(self, 1, values, tensor_rows(x), scale, NULL, (double *)args->out[0]);
}

int cuda_kd_loss_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    const op_attr *attr = &k->request.node.attr;
    double weight = attr->weight * attr->temperature / attr->count; /* T^2 of the loss, 1/T of the logits */
    return with_type(x->dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(kd_loss_grad_kernel<T>, dim3((unsigned)tensor_rows(x)), dim3(LOSS_THREADS), 0, self->stream,
                      (const T *)args->in[0], (const T *)args->in[1], (const float *)args->in[2], x->dim[3],
                      attr->temperature, weight, (T *)args->out[0], (T *)args->out[1]);
    });
}

/* ---- features ---- */

template <typename T>
__global__ void __launch_bounds__(THREADS)
    feature_loss_kernel(const T *student, const T *teacher, int64_t count, double *part)
{
    double sum = 0;
    for (int64_t i = flat_index(); i < count; i += flat_stride()) {
        double difference = (double)to_float(student[i]) - (double)to_float(teacher[i]);
        sum += difference * difference;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        part[blockIdx.x] = sum;
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    feature_loss_grad_kernel(const T *student, const T *teacher, const float *scaling, int64_t count, double weight,
                             T *grad)
{
    const float scale = (float)scaled(weight, scaling);
    for (int64_t i = flat_index(); i < count; i += flat_stride())
        from_float(scale * (to_float(student[i]) - to_float(teacher[i])), grad[i]);
}

int cuda_feature_loss(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    double *parts = loss_values(k, args);
    int64_t blocks = divide_up(tensor_count(x), THREADS);
    blocks = blocks < SUM_PARTS ? blocks : SUM_PARTS;
    TRY(with_type(x->dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(feature_loss_kernel<T>, dim3((unsigned)blocks), dim3(THREADS), 0, self->stream,
                      (const T *)args->in[0], (const T *)args->in[1], tensor_count(x), parts);
    }));
    return sum_lists(self, 1, parts, blocks, 1, NULL, (double *)args->out[0]);
}

int cuda_feature_loss_grad(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    return with_type(x->dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(feature_loss_grad_kernel<T>, flat_grid(self, tensor_count(x)), dim3(THREADS), 0, self->stream,
                      (const T *)args->in[0], (const T *)args->in[1], (const float *)args->in[2], tensor_count(x),
                      2 * k->request.node.attr.weight, (T *)args->out[0]);
    });
}

/* ---- right answers ---- */

/* right[0][picture], right[1][picture]: 1 if its class leads, is among the five largest. Ties and NaN count against. */
template <typename T>
__global__ void __launch_bounds__(LOSS_THREADS, 8)
    top_k_kernel(const T *logits, const int32_t *target, int classes, double *right)
{
    const T *z = logits + (int64_t)blockIdx.x * classes;
    const int own = target[blockIdx.x];
    double not_below = 0;
    for (int j = (int)threadIdx.x; j < classes; j += LOSS_THREADS)
        not_below += !is_class(own, classes) ? 5 : j != own && !(to_float(z[j]) < to_float(z[own]));
    not_below = block_sum(not_below);
    if (threadIdx.x == 0) {
        right[blockIdx.x] = not_below < 1;
        right[gridDim.x + blockIdx.x] = not_below < 5;
    }
}

int cuda_top_k(const cuda_backend *self, const kernel *k, const kernel_args *args)
{
    const tensor_desc *x = &k->request.in[0];
    double *values = loss_values(k, args);
    TRY(with_type(x->dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        return launch(top_k_kernel<T>, dim3((unsigned)tensor_rows(x)), dim3(LOSS_THREADS), 0, self->stream,
                      (const T *)args->in[0], (const int32_t *)args->in[1], x->dim[3], values);
    }));
    return sum_lists(self, 2, values, tensor_rows(x), 1, NULL, (double *)args->out[0]);
}
