/* Owns `teskd export`: a trained network as a file for other programs. */
#include "base/error.h"
#include "cli/commands.h"
#include "export/export.h"

#include <string.h>

static bool is_onnx(const options *o)
{
    return strcmp(o->format, "onnx") == 0;
}

static int check(const options *o, const comm *ranks)
{
    CHECK(comm_describe(ranks)->size == 1, ERROR_USAGE, "teskd export runs on one rank, not on %d",
          comm_describe(ranks)->size);
    CHECK(o->checkpoint, ERROR_USAGE, "teskd export needs --checkpoint FILE");
    CHECK(o->out, ERROR_USAGE, "teskd export needs --out FILE");
    CHECK(o->format, ERROR_USAGE, "teskd export needs --format safetensors or --format onnx");
    CHECK(is_onnx(o) || strcmp(o->format, "safetensors") == 0, ERROR_USAGE,
          "--format %s: expected one of safetensors, onnx", o->format);
    CHECK(is_onnx(o) || !o->fold_bn, ERROR_USAGE,
          "--fold-bn: a safetensors file holds the network's own tensors; it is for --format onnx");
    return 0;
}

static int run(const options *o, logger *log, comm *ranks)
{
    network_export d;
    TRY(comm_agree(ranks, check(o, ranks)));
    TRY(export_open(&d, o->checkpoint, o->all_heads, o->ema, ranks));
    int status = is_onnx(o) ? export_write_onnx(&d, o->out, o->fold_bn) : export_write_safetensors(&d, o->out);
    if (status == 0)
        log_info(log, "%s: %s with %d classes, %s, for %dx%d images", o->out, d.options.model.network->name,
                 d.options.model.classes, o->all_heads ? "teacher and students" : "the teacher alone",
                 d.options.model.image_width, d.options.model.image_height);
    export_close(&d);
    return status;
}

const command command_export = {
    .name = "export",
    .summary = "write a checkpoint's network as a safetensors or ONNX file",
    .usage = "",
    .options = OPTION_CHECKPOINT | OPTION_FORMAT | OPTION_OUT_FILE | OPTION_ALL_HEADS | OPTION_EMA | OPTION_FOLD_BN,
    .uses_settings = false,
    .run = run,
};
