/* Owns the decoding of JPEG: libjpeg's object, which is used again for each image, and its errors. Invariant: a long
 * jump goes from `fail` to `guarded` and nowhere else, and nothing in between holds memory that libjpeg does not know.
 * One thread a reader.
 *
 * What a view does not need is left out: columns outside are not transformed, rows above are only passed over, rows
 * below not even read. Beside colours of half the width or height lies a margin, since libjpeg fills in what is missing
 * at the edges of what it decodes. */
#include "base/error.h"
#include "formats.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

enum {
    MARGIN = 8, /* pixels */
    MOST_SCANS = 200,
    BLOCK_BYTES = DCTSIZE2 * sizeof(JCOEF),
};

struct jpeg_reader {
    struct jpeg_decompress_struct library; /* first, so that a pointer to it is one to the reader */
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    int status;
    bool has_end; /* the last bytes are the marker of an image's end */
    resampler *to;
    uint8_t *rows[RESAMPLE_ROWS];
};

static jpeg_reader *reader_of(j_common_ptr library)
{
    return (jpeg_reader *)(void *)library;
}

static _Noreturn void fail(jpeg_reader *reader, int status)
{
    reader->status = status;
    longjmp(reader->failed, 1);
}

static _Noreturn void on_error(j_common_ptr library)
{
    char text[JMSG_LENGTH_MAX];
    library->err->format_message(library, text);
    const bool memory = library->err->msg_code == JERR_OUT_OF_MEMORY;
    fail(reader_of(library), error_set(memory ? ERROR_MEMORY : ERROR_DATA, "JPEG: %s", text));
}

/* Damage that libjpeg goes on after is ignored, and so are its notes. */
static void on_message(j_common_ptr library, int level)
{
    (void)level;
    library->err->num_warnings++;
}

static void on_output(j_common_ptr library)
{
    (void)library;
}

static _Noreturn void ends_early(jpeg_reader *reader)
{
    fail(reader, error_set(ERROR_DATA, "JPEG: the file ends too early"));
}

static void no_work(j_decompress_ptr library)
{
    (void)library;
}

static boolean on_empty(j_decompress_ptr library)
{
    ends_early(reader_of((j_common_ptr)library));
}

static void on_skip(j_decompress_ptr library, long count)
{
    struct jpeg_source_mgr *source = library->src;
    if (count <= 0)
        return;
    if ((size_t)count > source->bytes_in_buffer)
        ends_early(reader_of((j_common_ptr)library));
    source->next_input_byte += count;
    source->bytes_in_buffer -= (size_t)count;
}

/* A few bytes make a scan of a whole image; thousands of them would take hours. */
static void on_progress(j_common_ptr library)
{
    jpeg_reader *reader = reader_of(library);
    if (reader->library.input_scan_number > MOST_SCANS)
        fail(reader, error_set(ERROR_DATA, "JPEG: more than %d scans", MOST_SCANS));
}

/* Does work that may fail inside libjpeg. */
static int guarded(jpeg_reader *reader, void (*work)(jpeg_reader *reader))
{
    reader->status = 0;
    if (setjmp(reader->failed) == 0)
        work(reader);
    return reader->status;
}

static void create(jpeg_reader *reader)
{
    jpeg_create_decompress(&reader->library);
}

int jpeg_reader_open(jpeg_reader **reader)
{
    jpeg_reader *made = calloc(1, sizeof *made);
    *reader = made;
    CHECK(made, ERROR_MEMORY, "no memory for a JPEG reader");
    made->library.err = jpeg_std_error(&made->errors);
    made->errors.error_exit = on_error;
    made->errors.emit_message = on_message;
    made->errors.output_message = on_output;
    int status = guarded(made, create);
    made->library.src = &made->source;
    made->source.init_source = no_work;
    made->source.term_source = no_work;
    made->source.fill_input_buffer = on_empty;
    made->source.skip_input_data = on_skip;
    made->source.resync_to_restart = jpeg_resync_to_restart;
    made->library.progress = &made->progress;
    made->progress.progress_monitor = on_progress;
    if (status < 0)
        jpeg_reader_close(reader);
    return status;
}

void jpeg_reader_close(jpeg_reader **reader)
{
    if (*reader)
        jpeg_destroy_decompress(&(*reader)->library);
    free(*reader);
    *reader = NULL;
}

static void read_header(jpeg_reader *reader)
{
    jpeg_abort_decompress(&reader->library);
    reader->library.client_data = NULL;
    jpeg_read_header(&reader->library, TRUE);
}

static int check_components(const struct jpeg_decompress_struct *library)
{
    const int n = library->num_components;
    CHECK(n == 1 || n == 3 || n == 4, ERROR_DATA, "JPEG: %d channels; expected 1, 3 or 4", n);
    return 0;
}

/* Of an image in several scans all coefficients are held until the last one. */
static int check_held(const jpeg_reader *reader)
{
    int64_t bytes = 0;
    const struct jpeg_decompress_struct *library = &reader->library;
    for (int c = 0; c < library->num_components; c++)
        bytes += (int64_t)library->comp_info[c].width_in_blocks * library->comp_info[c].height_in_blocks * BLOCK_BYTES;
    CHECK(bytes <= IMAGE_MOST_HELD, ERROR_DATA,
          "JPEG: %ux%u pixels in several scans would take %.1f GB of memory; at most %.1f are allowed",
          library->image_width, library->image_height, (double)bytes / 1e9, (double)IMAGE_MOST_HELD / 1e9);
    return 0;
}

int jpeg_reader_start(jpeg_reader *reader, const uint8_t *bytes, size_t size, image_info *info)
{
    struct jpeg_decompress_struct *library = &reader->library;
    reader->source.next_input_byte = bytes;
    reader->source.bytes_in_buffer = size;
    reader->has_end = size >= 2 && bytes[size - 2] == 0xff && bytes[size - 1] == JPEG_EOI;
    TRY(guarded(reader, read_header));
    TRY(check_components(library));
    *info = (image_info){.format = IMAGE_JPEG,
                         .height = (int32_t)library->image_height,
                         .width = (int32_t)library->image_width,
                         .channels = library->num_components,
                         .progressive = jpeg_has_multiple_scans(library)};
    TRY(image_check_size(info));
    return info->progressive ? check_held(reader) : 0;
}

/* Are all components of full size, or the first one of one or two samples for each of the others along either axis?
 * What else there may be is rare, and decoded whole. */
static bool is_usual(const struct jpeg_decompress_struct *library)
{
    for (int c = 0; c < library->num_components; c++) {
        const jpeg_component_info *component = &library->comp_info[c];
        const int h = component->h_samp_factor, v = component->v_samp_factor;
        if (c == 0 ? h > 2 || v > 2 : h > 1 || v > 1)
            return false;
    }
    return library->num_components > 1 || (library->max_h_samp_factor == 1 && library->max_v_samp_factor == 1);
}

/* Leaves out what lies beside the columns that are needed; returns where they begin in what is left. */
static int32_t crop_columns(jpeg_reader *reader)
{
    struct jpeg_decompress_struct *library = &reader->library;
    const image_region *needed = &reader->to->needed;
    const int32_t margin = library->max_h_samp_factor > 1 ? MARGIN : 0, width = (int32_t)library->output_width;
    const int32_t begin = needed->left > margin ? needed->left - margin : 0;
    const int32_t end = needed->left + needed->width + margin < width ? needed->left + needed->width + margin : width;
    JDIMENSION first = (JDIMENSION)begin, columns = (JDIMENSION)(end - begin);
    if (begin > 0 || end < width)
        jpeg_crop_scanline(library, &first, &columns);
    return needed->left - (int32_t)first;
}

/* Rows before the first one that is needed: passed over, but for a margin. */
static void skip_rows(jpeg_reader *reader)
{
    struct jpeg_decompress_struct *library = &reader->library;
    const int32_t margin = library->max_v_samp_factor > 1 ? MARGIN : 0, top = reader->to->needed.top;
    if (top > margin)
        jpeg_skip_scanlines(library, (JDIMENSION)(top - margin));
    while (library->output_scanline < (JDIMENSION)top)
        jpeg_read_scanlines(library, reader->rows, 1);
}

/* Pillow takes the four channels as inverted, whatever wrote them. */
static void rgb_of_cmyk(uint8_t *row, JDIMENSION pixels)
{
    for (JDIMENSION i = 0; i < pixels; i++, row += RESAMPLE_PIXEL)
        for (int c = 0, white = row[3]; c < IMAGE_CHANNELS; c++) {
            const int ink = 255 - row[c], product = ink * white + 128;
            row[c] = (uint8_t)(white - ((product + (product >> 8)) >> 8));
        }
}

static void read_rows(jpeg_reader *reader, int32_t count)
{
    struct jpeg_decompress_struct *library = &reader->library;
    for (int32_t row = 0; row < count;) {
        const int32_t got = (int32_t)jpeg_read_scanlines(library, reader->rows + row, (JDIMENSION)(count - row));
        for (int32_t i = row; i < row + got && library->out_color_space == JCS_CMYK; i++)
            rgb_of_cmyk(reader->rows[i], library->output_width);
        row += got;
    }
}

/* To the marker of the end, where it is not known to be there. */
static void read_to_end(jpeg_reader *reader)
{
    struct jpeg_decompress_struct *library = &reader->library;
    while (library->output_scanline < library->output_height)
        jpeg_read_scanlines(library, reader->rows, 1);
    jpeg_finish_decompress(library);
}

static void decode(jpeg_reader *reader)
{
    struct jpeg_decompress_struct *library = &reader->library;
    resampler *to = reader->to;
    library->out_color_space = library->num_components == 4 ? JCS_CMYK : JCS_EXT_RGBX;
    jpeg_start_decompress(library);
    const bool usual = is_usual(library);
    const int32_t left = usual ? crop_columns(reader) : to->needed.left;
    if (resampler_reserve(to, (int32_t)library->output_width, reader->rows) < 0)
        fail(reader, ERROR_MEMORY);
    skip_rows(reader);
    for (int32_t row = 0; row < to->needed.height; row += RESAMPLE_ROWS) {
        const int32_t rest = to->needed.height - row, count = rest < RESAMPLE_ROWS ? rest : RESAMPLE_ROWS;
        read_rows(reader, count);
        resampler_push(to, count, left);
    }
    if (!reader->has_end)
        read_to_end(reader);
}

int jpeg_reader_rows(jpeg_reader *reader, resampler *r)
{
    reader->to = r;
    int status = guarded(reader, decode);
    jpeg_abort_decompress(&reader->library);
    return status;
}
