/* Owns the table of networks. Constant; any thread. */
#include "model/network.h"

#include <string.h>

const char *const head_names[HEADS] = {"teacher", "student3", "student2", "student1"};

/* cifarresnet8 counts the convolutions of its four blocks; the other names count the stem and the classifier too. */
static const network_row networks[] = {
    {"cifarresnet8", FAMILY_RESNET, BLOCK_BASIC, {1, 1, 1, 1}, 16, 32, 2},
    {"cifarresnet18", FAMILY_RESNET, BLOCK_BASIC, {2, 2, 2, 2}, 64, 32, 2},
    {"cifarresnet34", FAMILY_RESNET, BLOCK_BASIC, {3, 4, 6, 3}, 64, 32, 2},
    {"cifarresnet50", FAMILY_RESNET, BLOCK_BOTTLENECK, {3, 4, 6, 3}, 64, 32, 2},
    {"resnext18", FAMILY_RESNEXT, BLOCK_BASIC, {2, 2, 2, 2}, 64, 32, 2},
    {"resnext34", FAMILY_RESNEXT, BLOCK_BASIC, {3, 4, 6, 3}, 64, 32, 2},
    {"resnext50", FAMILY_RESNEXT, BLOCK_BOTTLENECK, {3, 4, 6, 3}, 64, 32, 2},
    {"seresnet18", FAMILY_SERESNET, BLOCK_BASIC, {2, 2, 2, 2}, 64, 32, 2},
    {"seresnet34", FAMILY_SERESNET, BLOCK_BASIC, {3, 4, 6, 3}, 64, 32, 2},
    {"seresnet50", FAMILY_SERESNET, BLOCK_BOTTLENECK, {3, 4, 6, 3}, 64, 32, 2},
    {"vgg16", FAMILY_VGG, BLOCK_BASIC, {2, 3, 3, 3}, 64, 32, 1},
    {"vgg19", FAMILY_VGG, BLOCK_BASIC, {2, 4, 4, 4}, 64, 32, 1},
    {"resnet18", FAMILY_RESNET, BLOCK_BASIC, {2, 2, 2, 2}, 64, 224, 2},
    {"resnet34", FAMILY_RESNET, BLOCK_BASIC, {3, 4, 6, 3}, 64, 224, 2},
    {"resnet50", FAMILY_RESNET, BLOCK_BOTTLENECK, {3, 4, 6, 3}, 64, 224, 2},
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
