/* Owns `teskd data synth`: synthetic images, for trying the program without a download. */
#include "base/error.h"
#include "cli/data_commands.h"
#include "io/data/synth.h"

static const int32_t default_train_images = 10000, default_test_images = 2000;

static int write_synth(const options *o, logger *log)
{
    int32_t train_images = o->train_images < 0 ? default_train_images : (int32_t)o->train_images;
    int32_t test_images = o->test_images < 0 ? default_test_images : (int32_t)o->test_images;
    CHECK(o->out, ERROR_USAGE, "teskd data synth needs --out DIR");
    CHECK(o->train_images <= 10000000 && o->test_images <= 10000000, ERROR_USAGE,
          "--train-images and --test-images: at most 10000000");
    if (o->folders) {
        TRY(synth_write_folders(o->out, train_images, test_images, o->seed < 0 ? 0 : (uint64_t)o->seed));
        log_info(log, "%s: %d training and %d test images of %d classes in class folders", o->out, train_images,
                 test_images, SYNTH_CLASSES);
        return 0;
    }
    TRY(synth_write(o->out, train_images, test_images, o->seed < 0 ? 0 : (uint64_t)o->seed));
    log_info(log, "%s: %d training and %d test images of %d classes in the CIFAR-10 binary layout", o->out,
             train_images, test_images, SYNTH_CLASSES);
    return 0;
}

static int run(const options *o, logger *log, comm *ranks)
{
    int status = comm_describe(ranks)->rank == 0 ? write_synth(o, log) : 0;
    return comm_agree(ranks, status);
}

const data_command data_synth = {
    .name = "synth",
    .usage = "",
    .summary = "write synthetic images in the CIFAR-10 binary layout",
    .options = OPTION_SYNTH | OPTION_SEED | OPTION_OUT | OPTION_ARGUMENTS,
    .run = run,
};
