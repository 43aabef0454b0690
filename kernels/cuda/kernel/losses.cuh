/* Losses, their gradients and the counts of right answers, an image at a time. A launch for one op and one for many
 * share this, so that both give the same bits. One block per image; sums in double. A class out of range makes its loss
 * and gradient NaN and its answer wrong: a kernel cannot refuse. Loops over exp and log stay rolled: a thread has few
 * columns, and several copies cost more than they save. */
#ifndef TESKD_KERNELS_CUDA_LOSSES_CUH
#define TESKD_KERNELS_CUDA_LOSSES_CUH

#include "reduce.cuh"

static constexpr int LOSS_THREADS = 128;

/* A node: rows of `columns` logits or features, one row per image. Thread 0 of a loss writes values[image],
 * of top_k also values[images + image]; *sums (and sums[1]) is then `scale` times what the images add up to. */
struct loss_entry {
    unsigned op;
    int columns, images, lists; /* lists: of values to be added up; 0 for a gradient */
    const void *first, *second; /* logits, or student and teacher */
    const int32_t *target;
    const float *scaling; /* the loss scale; may be NULL */
    void *grad, *second_grad;
    double *values, *sums;
    double weight, smoothing, temperature, scale;
};

/* Everything of a node but where the values go. */
loss_entry loss_entry_of(const kernel *k, const kernel_args *args);

static inline size_t loss_value_count(const loss_entry &e)
{
    return (size_t)e.lists * (size_t)e.images;
}

static constexpr double kd_floor = 1e-7; /* the loss adds it to the teacher's probabilities */

template <typename T> __device__ static inline const T *row_of(const void *rows, const loss_entry &e, int image)
{
    return (const T *)rows + (int64_t)image * e.columns;
}

/* log of sum exp(z/T), shifted by the largest z so that nothing overflows. For all threads of the block. */
template <typename T> __device__ static inline double log_partition(const T *z, int columns, double temperature)
{
    double top = -INFINITY, sum = 0;
    for (int j = (int)threadIdx.x; j < columns; j += LOSS_THREADS) {
        double value = (double)to_float(z[j]);
        top = larger()(top, value);
    }
    top = block_largest(top);
#pragma unroll 1
    for (int j = (int)threadIdx.x; j < columns; j += LOSS_THREADS)
        sum += exp(((double)to_float(z[j]) - top) / temperature);
    return top / temperature + log(block_sum(sum));
}

__device__ static inline bool is_class(int target, int columns)
{
    return target >= 0 && target < columns;
}

/* The weight of a gradient, times the loss scale where there is one. */
__device__ static inline double scaled_weight(const loss_entry &e)
{
    return e.scaling ? e.weight * (double)*e.scaling : e.weight;
}

template <typename T> __device__ static inline void cross_entropy(const loss_entry &e, int image)
{
    const T *z = row_of<T>(e.first, e, image);
    const int right = e.target[image];
    double partition = log_partition(z, e.columns, 1), sum = 0;
    for (int j = (int)threadIdx.x; j < e.columns && e.smoothing > 0; j += LOSS_THREADS)
        sum += (double)to_float(z[j]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        double own = is_class(right, e.columns) ? (double)to_float(z[right]) : (double)NAN;
        e.values[image] = partition - (1 - e.smoothing) * own - e.smoothing / e.columns * sum;
    }
}

template <typename T> __device__ static inline void cross_entropy_grad(const loss_entry &e, int image)
{
    const T *z = row_of<T>(e.first, e, image);
    T *grad = (T *)e.grad + (int64_t)image * e.columns;
    const int right = e.target[image];
    const double partition = log_partition(z, e.columns, 1), everywhere = e.smoothing / e.columns;
    const double scale = is_class(right, e.columns) ? scaled_weight(e) : (double)NAN;
#pragma unroll 1
    for (int j = (int)threadIdx.x; j < e.columns; j += LOSS_THREADS) {
        double t = (j == right ? 1 - e.smoothing : 0) + everywhere;
        from_float((float)(scale * (exp((double)to_float(z[j]) - partition) - t)), grad[j]);
    }
}

template <typename T> __device__ static inline void kd_loss(const loss_entry &e, int image)
{
    const T *student = row_of<T>(e.first, e, image), *teacher = row_of<T>(e.second, e, image);
    const double of_student = log_partition(student, e.columns, e.temperature);
    const double of_teacher = log_partition(teacher, e.columns, e.temperature);
    double sum = 0;
#pragma unroll 1
    for (int j = (int)threadIdx.x; j < e.columns; j += LOSS_THREADS) {
        double q = exp((double)to_float(teacher[j]) / e.temperature - of_teacher) + kd_floor;
        sum += q * (log(q) - ((double)to_float(student[j]) / e.temperature - of_student));
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        e.values[image] = sum;
}

/* Let p and s be the softmaxes of student and teacher, and q = s + floor. The loss sum q (log q - log p) has
 * d/dz_student = (p * sum q - q)/T. With a = log q - log p + 1 it has d/dz_teacher = s (a - sum s a)/T. */
template <typename T> __device__ static inline void kd_loss_grad(const loss_entry &e, int image)
{
    const T *student = row_of<T>(e.first, e, image), *teacher = row_of<T>(e.second, e, image);
    T *dstudent = (T *)e.grad, *dteacher = (T *)e.second_grad;
    const int64_t first = (int64_t)image * e.columns;
    const double scale = scaled_weight(e);
    const double of_student = log_partition(student, e.columns, e.temperature);
    const double of_teacher = log_partition(teacher, e.columns, e.temperature);
    double sum_q = 0, sum_sa = 0;
#pragma unroll 1
    for (int j = (int)threadIdx.x; j < e.columns; j += LOSS_THREADS) {
        double s = exp((double)to_float(teacher[j]) / e.temperature - of_teacher);
        double log_p = (double)to_float(student[j]) / e.temperature - of_student;
        sum_q += s + kd_floor;
        sum_sa += s * (log(s + kd_floor) - log_p + 1);
    }
    sum_q = block_sum(sum_q);
    sum_sa = block_sum(sum_sa);
#pragma unroll 1
    for (int j = (int)threadIdx.x; j < e.columns; j += LOSS_THREADS) {
        double s = exp((double)to_float(teacher[j]) / e.temperature - of_teacher);
        double log_p = (double)to_float(student[j]) / e.temperature - of_student;
        if (dstudent)
            from_float((float)(scale * (exp(log_p) * sum_q - (s + kd_floor))), dstudent[first + j]);
        if (dteacher)
            from_float((float)(scale * s * (log(s + kd_floor) - log_p + 1 - sum_sa)), dteacher[first + j]);
    }
}

template <typename T> __device__ static inline void feature_loss(const loss_entry &e, int image)
{
    const T *student = row_of<T>(e.first, e, image), *teacher = row_of<T>(e.second, e, image);
    double sum = 0;
    for (int j = (int)threadIdx.x; j < e.columns; j += LOSS_THREADS) {
        double difference = (double)to_float(student[j]) - (double)to_float(teacher[j]);
        sum += difference * difference;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        e.values[image] = sum;
}

template <typename T> __device__ static inline void feature_loss_grad(const loss_entry &e, int image)
{
    const T *student = row_of<T>(e.first, e, image), *teacher = row_of<T>(e.second, e, image);
    T *grad = (T *)e.grad + (int64_t)image * e.columns;
    const float scale = (float)scaled_weight(e);
    for (int j = (int)threadIdx.x; j < e.columns; j += LOSS_THREADS)
        from_float(scale * (to_float(student[j]) - to_float(teacher[j])), grad[j]);
}

/* 1 if the image's class leads, is among the five largest. Ties count against, and a logit that is not finite as much
 * as five of them. */
template <typename T> __device__ static inline void top_k(const loss_entry &e, int image)
{
    const T *z = row_of<T>(e.first, e, image);
    const int own = e.target[image];
    double not_below = 0;
    for (int j = (int)threadIdx.x; j < e.columns; j += LOSS_THREADS)
        not_below += !is_class(own, e.columns) || !isfinite(to_float(z[j])) ? 5
                     : j != own && to_float(z[j]) >= to_float(z[own])       ? 1
                                                                            : 0;
    not_below = block_sum(not_below);
    if (threadIdx.x == 0) {
        e.values[image] = not_below < 1;
        e.values[e.images + image] = not_below < 5;
    }
}

/* Adds up the values of all images, in an order that is always the same. For all threads of the block. */
__device__ static inline void sum_images(const loss_entry &e)
{
    for (int list = 0; list < e.lists; list++) {
        const double *values = e.values + (int64_t)list * e.images;
        double total = 0;
        for (int i = (int)threadIdx.x; i < e.images; i += LOSS_THREADS)
            total += values[i];
        total = block_sum(total);
        if (threadIdx.x == 0)
            e.sums[list] = e.scale * total;
    }
}

/* What the node has to do for one image. For all threads of the block. */
template <typename T> __device__ static inline void do_image(const loss_entry &e, int image)
{
    switch (e.op) {
    case OP_CROSS_ENTROPY:
        return cross_entropy<T>(e, image);
    case OP_CROSS_ENTROPY_GRAD:
        return cross_entropy_grad<T>(e, image);
    case OP_KD_LOSS:
        return kd_loss<T>(e, image);
    case OP_KD_LOSS_GRAD:
        return kd_loss_grad<T>(e, image);
    case OP_FEATURE_LOSS:
        return feature_loss<T>(e, image);
    case OP_FEATURE_LOSS_GRAD:
        return feature_loss_grad<T>(e, image);
    default:
        return top_k<T>(e, image);
    }
}

#endif
