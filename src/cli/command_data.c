/* Owns `teskd data`: making data sets. */
#include "base/error.h"
#include "cli/commands.h"
#include "io/data/synth.h"

#include <string.h>

static const int32_t default_train_images = 10000, default_test_images = 2000;

static int write_synth(const options *o, logger *log)
{
    int32_t train_images = o->train_images < 0 ? default_train_images : (int32_t)o->train_images;
    int32_t test_images = o->test_images < 0 ? default_test_images : (int32_t)o->test_images;
    CHECK(o->out, ERROR_USAGE, "teskd data synth needs --out DIR");
    CHECK(o->train_images <= 10000000 && o->test_images <= 10000000, ERROR_USAGE,
          "--train-images and --test-images: at most 10000000");
    TRY(synth_write(o->out, train_images, test_images, o->seed < 0 ? 0 : (uint64_t)o->seed));
    log_info(log, "%s: %d training and %d test images of %d classes in the CIFAR-10 binary layout", o->out,
             train_images, test_images, SYNTH_CLASSES);
    return 0;
}

static int run(const options *o, logger *log, comm *ranks)
{
    CHECK(o->n_arguments == 1 && strcmp(o->arguments[0], "synth") == 0, ERROR_USAGE, "teskd data takes one of: synth");
    int status = comm_describe(ranks)->rank == 0 ? write_synth(o, log) : 0;
    return comm_agree(ranks, status);
}

const command command_data = {
    .name = "data",
    .summary = "make a data set: synth writes synthetic images in the CIFAR-10 binary layout",
    .usage = "synth",
    .options = OPTION_OUT | OPTION_TRAIN_IMAGES | OPTION_TEST_IMAGES | OPTION_SEED | OPTION_ARGUMENTS,
    .uses_settings = false,
    .run = run,
};
