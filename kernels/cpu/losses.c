/* Losses, their gradients and the counts of right answers: float32 logits, float64 inside. An image is one
 * row of `classes` logits; gradients go over the threads by image, sums run in the order of the images. */
#include "base/error.h"
#include "cpu.h"

#include <math.h>

static const double kd_floor = 1e-7; /* the loss adds it to the teacher's probabilities */

/* log of sum exp(z/T), shifted by the largest z so that nothing overflows. */
static double log_partition(const float *z, int64_t classes, double temperature)
{
    double top = (double)z[0], sum = 0;
    for (int64_t j = 1; j < classes; j++)
        if ((double)z[j] > top)
            top = (double)z[j];
    for (int64_t j = 0; j < classes; j++)
        sum += exp(((double)z[j] - top) / temperature);
    return top / temperature + log(sum);
}

static int check_targets(const kernel *k, const kernel_args *args)
{
    const int32_t *target = args->in[1];
    int32_t classes = k->request.in[0].dim[3];
    for (int64_t n = 0; n < tensor_rows(&k->request.in[0]); n++)
        CHECK(target[n] >= 0 && target[n] < classes, ERROR_DATA, "image %lld of the batch has class %d of %d",
              (long long)n, target[n], classes);
    return 0;
}

/* What an image's target is compared with: its class's logit, mixed with the mean of all by the smoothing. */
static double target_logit(const float *z, int64_t classes, int32_t target, double smoothing)
{
    double sum = 0;
    for (int64_t j = 0; j < classes; j++)
        sum += (double)z[j];
    return (1 - smoothing) * (double)z[target] + smoothing / (double)classes * sum;
}

int cross_entropy_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const int32_t *target = args->in[1];
    int64_t images = tensor_rows(&k->request.in[0]), classes = k->request.in[0].dim[3];
    double sum = 0;
    TRY(check_targets(k, args));
    for (int64_t n = 0; n < images; n++) {
        const float *z = (const float *)args->in[0] + n * classes;
        sum += log_partition(z, classes, 1) - target_logit(z, classes, target[n], k->request.node.attr.smoothing);
    }
    *(double *)args->out[0] = sum / k->request.node.attr.count;
    return 0;
}

/* Of the loss whose gradient is made, times the loss scale where there is one. */
static double scaled_weight(const kernel *k, const kernel_args *args)
{
    const float *scaling = args->in[2];
    return k->request.node.attr.weight * (scaling ? (double)scaling[SCALING_SCALE] : 1);
}

int cross_entropy_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const int32_t *target = args->in[1];
    int64_t images = tensor_rows(&k->request.in[0]), classes = k->request.in[0].dim[3];
    double scale = scaled_weight(k, args) / k->request.node.attr.count;
    double smoothing = k->request.node.attr.smoothing;
    TRY(check_targets(k, args));
#pragma omp parallel for num_threads(self->threads) schedule(static)
    for (int64_t n = 0; n < images; n++) {
        const float *z = (const float *)args->in[0] + n * classes;
        float *dz = (float *)args->out[0] + n * classes;
        double total = log_partition(z, classes, 1);
        for (int64_t j = 0; j < classes; j++) {
            double t = (j == target[n] ? 1 - smoothing : 0) + smoothing / (double)classes;
            dz[j] = (float)(scale * (exp((double)z[j] - total) - t));
        }
    }
    return 0;
}

int kd_loss_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    int64_t images = tensor_rows(&k->request.in[0]), classes = k->request.in[0].dim[3];
    double temperature = k->request.node.attr.temperature, sum = 0;
    for (int64_t n = 0; n < images; n++) {
        const float *student = (const float *)args->in[0] + n * classes;
        const float *teacher = (const float *)args->in[1] + n * classes;
        double student_total = log_partition(student, classes, temperature);
        double teacher_total = log_partition(teacher, classes, temperature);
        for (int64_t j = 0; j < classes; j++) {
            double q = exp((double)teacher[j] / temperature - teacher_total) + kd_floor;
            sum += q * (log(q) - ((double)student[j] / temperature - student_total));
        }
    }
    *(double *)args->out[0] = temperature * temperature / k->request.node.attr.count * sum;
    return 0;
}

/* Of one image. Let p and s be the softmaxes of student and teacher, and q = s + floor. The loss sum q (log q - log p)
 * has d/dz_student = (p * sum q - q)/T. With a = log q - log p + 1 it has d/dz_teacher = s (a - sum s a)/T. Either
 * output may be absent. */
static void kd_gradient(const float *student, const float *teacher, int64_t classes, double temperature, double scale,
                        float *dstudent, float *dteacher)
{
    double student_total = log_partition(student, classes, temperature);
    double teacher_total = log_partition(teacher, classes, temperature);
    double q_sum = 0, sa_sum = 0;
    for (int64_t j = 0; j < classes; j++) {
        double s = exp((double)teacher[j] / temperature - teacher_total);
        q_sum += s + kd_floor;
        sa_sum += s * (log(s + kd_floor) - ((double)student[j] / temperature - student_total) + 1);
    }
    for (int64_t j = 0; j < classes; j++) {
        double log_p = (double)student[j] / temperature - student_total;
        double s = exp((double)teacher[j] / temperature - teacher_total), q = s + kd_floor;
        if (dstudent)
            dstudent[j] = (float)(scale / temperature * (exp(log_p) * q_sum - q));
        if (dteacher)
            dteacher[j] = (float)(scale / temperature * s * (log(q) - log_p + 1 - sa_sum));
    }
}

int kd_loss_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    const op_attr *attr = &k->request.node.attr;
    int64_t images = tensor_rows(&k->request.in[0]), classes = k->request.in[0].dim[3];
    double scale = scaled_weight(k, args) * attr->temperature * attr->temperature / attr->count;
    const float *student = args->in[0], *teacher = args->in[1];
    float *dstudent = args->out[0], *dteacher = args->out[1];
#pragma omp parallel for num_threads(self->threads) schedule(static)
    for (int64_t n = 0; n < images; n++)
        kd_gradient(student + n * classes, teacher + n * classes, classes, attr->temperature, scale,
                    dstudent ? dstudent + n * classes : NULL, dteacher ? dteacher + n * classes : NULL);
    return 0;
}

int feature_loss_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const float *student = args->in[0], *teacher = args->in[1];
    double sum = 0;
    for (int64_t i = 0; i < tensor_count(&k->request.in[0]); i++) {
        double difference = (double)student[i] - (double)teacher[i];
        sum += difference * difference;
    }
    *(double *)args->out[0] = sum;
    return 0;
}

int feature_loss_grad_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const float *student = args->in[0], *teacher = args->in[1];
    float *dstudent = args->out[0];
    for (int64_t i = 0; i < tensor_count(&k->request.in[0]); i++)
        dstudent[i] = (float)(2 * scaled_weight(k, args) * ((double)student[i] - (double)teacher[i]));
    return 0;
}

int top_k_launch(const cpu_backend *self, const kernel *k, const kernel_args *args)
{
    (void)self;
    const int32_t *target = args->in[1];
    int64_t images = tensor_rows(&k->request.in[0]), classes = k->request.in[0].dim[3];
    double *right = args->out[0];
    TRY(check_targets(k, args));
    right[0] = right[1] = 0;
    for (int64_t n = 0; n < images; n++) {
        const float *z = (const float *)args->in[0] + n * classes;
        int ahead = 0; /* a tie counts against the image; a logit that is not finite is as bad as five of them */
        for (int64_t j = 0; j < classes; j++)
            ahead += !isfinite(z[j]) ? 5 : j != target[n] && z[j] >= z[target[n]];
        right[0] += ahead == 0;
        right[1] += ahead < 5;
    }
    return 0;
}
