/* Owns the table of networks. Constant; any thread. */
#include "model/network.h"

#include <string.h>

const char *const head_names[HEADS] = {"teacher", "student3", "student2", "student1"};

/* cifarresnet8 counts the convolutions of its four blocks; the other names count the stem and the classifier too. */
static const network_row networks[] = {
    {"cifarresnet8", BLOCK_BASIC, {1, 1, 1, 1}, 16, 1, 32},
    {"cifarresnet18", BLOCK_BASIC, {2, 2, 2, 2}, 64, 1, 32},
    {"cifarresnet34", BLOCK_BASIC, {3, 4, 6, 3}, 64, 1, 32},
    {"cifarresnet50", BLOCK_BOTTLENECK, {3, 4, 6, 3}, 64, 4, 32},
};

enum { NETWORKS = sizeof networks / sizeof networks[0] };

const network_row *network_at(int index)
{
    return index >= 0 && index < NETWORKS ? &networks[index] : NULL;
}

const network_row *network_find(const char *name)
{
    for (int i = 0; i < NETWORKS; i++)
        if (strcmp(networks[i].name, name) == 0)
            return &networks[i];
    return NULL;
}
