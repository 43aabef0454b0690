/* Orders for qsort. */
#ifndef TESKD_BASE_ORDER_H
#define TESKD_BASE_ORDER_H

/* From the least to the greatest of two doubles, which are no NaN. */
static inline int order_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

#endif
