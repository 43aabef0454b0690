/* Losses, their gradients, and the counts of right answers. Logits are rows of `classes` values, one per image.
 * Losses are sums over the local batch over attr.count, the images of the global batch. Nothing is kept. */
#include <math.h>

#include "base/error.h"
#include "reference.h"

/* Added to the teacher's probabilities by the definition of the distillation loss. */
static const double kd_floor = 1e-7;

/* log(sum(exp(z / temperature))), safe for any size of z. */
static double log_sum_exp(const double *z, int classes, double temperature)
{
    double largest = z[0], sum = 0;
    for (int k = 1; k < classes; k++)
        largest = fmax(largest, z[k]);
    for (int k = 0; k < classes; k++)
        sum += exp((z[k] - largest) / temperature);
    return largest / temperature + log(sum);
}

static int check_targets(const kernel_request *request, const kernel_args *args)
{
    const int32_t *target = args->in[1];
    int classes = request->in[0].dim[3];
    for (int64_t n = 0; n < tensor_rows(&request->in[0]); n++)
        CHECK(target[n] >= 0 && target[n] < classes, ERROR_DATA, "image %lld of the batch has class %d of %d",
              (long long)n, target[n], classes);
    return 0;
}

/* What an image's target is compared with: its class's logit, mixed with the mean of all by the smoothing. */
static double target_logit(const double *logits, int classes, int target, double smoothing)
{
    double sum = 0;
    for (int k = 0; k < classes; k++)
        sum += logits[k];
    return (1 - smoothing) * logits[target] + smoothing * sum / classes;
}

int reference_cross_entropy(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *logits = args->in[0];
    const int32_t *target = args->in[1];
    double *loss = args->out[0], sum = 0;
    int classes = request->in[0].dim[3];
    TRY(check_targets(request, args));
    for (int64_t n = 0; n < tensor_rows(&request->in[0]); n++, logits += classes)
        sum += log_sum_exp(logits, classes, 1) - target_logit(logits, classes, target[n], request->node.attr.smoothing);
    *loss = sum / request->node.attr.count;
    return 0;
}

/* Of the loss whose gradient is made, times the loss scale where there is one. */
static double scaled_weight(const kernel_request *request, const kernel_args *args)
{
    const double *scaling = args->in[2];
    return request->node.attr.weight * (scaling ? scaling[SCALING_SCALE] : 1);
}

int reference_cross_entropy_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *logits = args->in[0];
    const int32_t *target = args->in[1];
    double *grad = args->out[0];
    const op_attr *attr = &request->node.attr;
    int classes = request->in[0].dim[3];
    TRY(check_targets(request, args));
    for (int64_t n = 0; n < tensor_rows(&request->in[0]); n++, logits += classes, grad += classes) {
        double total = log_sum_exp(logits, classes, 1);
        for (int k = 0; k < classes; k++) {
            double t = (k == target[n] ? 1 - attr->smoothing : 0) + attr->smoothing / classes;
            grad[k] = scaled_weight(request, args) / attr->count * (exp(logits[k] - total) - t);
        }
    }
    return 0;
}

int reference_kd_loss(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *student = args->in[0], *teacher = args->in[1];
    double *loss = args->out[0], sum = 0;
    double t = request->node.attr.temperature;
    int classes = request->in[0].dim[3];
    for (int64_t n = 0; n < tensor_rows(&request->in[0]); n++, student += classes, teacher += classes) {
        double student_total = log_sum_exp(student, classes, t), teacher_total = log_sum_exp(teacher, classes, t);
        for (int k = 0; k < classes; k++) {
            double q = exp(teacher[k] / t - teacher_total) + kd_floor;
            sum += q * (log(q) - (student[k] / t - student_total));
        }
    }
    *loss = t * t / request->node.attr.count * sum;
    return 0;
}

/* One image, `scale` = weight * T^2 / count. With p = softmax(student/T) and s = softmax(teacher/T), q = s + floor:
 *   d/d student_j = scale/T * (p_j * sum(q) - q_j)
 *   d/d q_j       = log q_j - log p_j + 1 = a_j, and through the softmax
 *   d/d teacher_j = scale/T * s_j * (a_j - sum(s a)) */
static void kd_image_grad(const double *student, const double *teacher, int classes, double t, double scale,
                          double *student_grad, double *teacher_grad)
{
    double student_total = log_sum_exp(student, classes, t), teacher_total = log_sum_exp(teacher, classes, t);
    double sum_q = 0, sum_sa = 0;
    for (int k = 0; k < classes; k++) {
        double s = exp(teacher[k] / t - teacher_total), log_p = student[k] / t - student_total;
        sum_q += s + kd_floor;
        sum_sa += s * (log(s + kd_floor) - log_p + 1);
    }
    for (int k = 0; k < classes; k++) {
        double s = exp(teacher[k] / t - teacher_total), log_p = student[k] / t - student_total;
        if (student_grad)
            student_grad[k] = scale / t * (exp(log_p) * sum_q - (s + kd_floor));
        if (teacher_grad)
            teacher_grad[k] = scale / t * s * (log(s + kd_floor) - log_p + 1 - sum_sa);
    }
}

int reference_kd_loss_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *student = args->in[0], *teacher = args->in[1];
    double *student_grad = args->out[0], *teacher_grad = args->out[1];
    const op_attr *attr = &request->node.attr;
    double t = attr->temperature, scale = scaled_weight(request, args) * t * t / attr->count;
    int classes = request->in[0].dim[3];
    for (int64_t n = 0; n < tensor_rows(&request->in[0]); n++)
        kd_image_grad(student + n * classes, teacher + n * classes, classes, t, scale,
                      student_grad ? student_grad + n * classes : NULL,
                      teacher_grad ? teacher_grad + n * classes : NULL);
    return 0;
}

int reference_feature_loss(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *student = args->in[0], *teacher = args->in[1];
    double *loss = args->out[0];
    *loss = 0;
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++)
        *loss += (student[i] - teacher[i]) * (student[i] - teacher[i]);
    return 0;
}

int reference_feature_loss_grad(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *student = args->in[0], *teacher = args->in[1];
    double *grad = args->out[0];
    for (int64_t i = 0; i < tensor_count(&request->in[0]); i++)
        grad[i] = scaled_weight(request, args) * 2 * (student[i] - teacher[i]);
    return 0;
}

int reference_top_k(const reference *self, const kernel_request *request, const kernel_args *args)
{
    (void)self;
    const double *logits = args->in[0];
    const int32_t *target = args->in[1];
    double *right = args->out[0];
    int classes = request->in[0].dim[3];
    TRY(check_targets(request, args));
    right[0] = right[1] = 0;
    for (int64_t n = 0; n < tensor_rows(&request->in[0]); n++, logits += classes) {
        int not_below = 0; /* other classes that tie or lead; a logit that is not finite is as bad as five of them */
        for (int k = 0; k < classes; k++)
            not_below += !isfinite(logits[k]) ? 5 : k != target[n] && logits[k] >= logits[target[n]];
        right[0] += not_below < 1;
        right[1] += not_below < 5;
    }
    return 0;
}
