// pagebooth grid: pictures side by side in one.
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "io/image.h"

static pb_status read_all(const pb_option_list *files, pb_image *images) {
    for (int i = 0; i < files->count; i++) {
        PB_RETURN_IF(pb_image_load(files->item[i], NULL, &images[i]));
        if (images[i].width != images[0].width || images[i].height != images[0].height)
            return pb_error(PB_ERR_USAGE, "%s is %d x %d, and %s is %d x %d: a grid takes pictures of one size",
                            files->item[i], images[i].width, images[i].height, files->item[0], images[0].width,
                            images[0].height);
    }
    return PB_OK;
}

static pb_status lay_out(const pb_image *images, int count, int columns, int gap, pb_image *grid) {
    const int64_t width = images[0].width, height = images[0].height, rows = (count + columns - 1) / columns;
    const int64_t full_width = columns * (width + gap) - gap, full_height = rows * (height + gap) - gap;
    if (full_width > INT32_MAX || full_height > INT32_MAX) return pb_error(PB_ERR_USAGE, "the grid is too large");
    PB_RETURN_IF(pb_image_create((int32_t)full_width, (int32_t)full_height, grid));
    memset(grid->rgb, 255, (size_t)(full_width * full_height * 3));
    for (int i = 0; i < count; i++) {
        uint8_t *corner = grid->rgb + ((i / columns) * (height + gap) * full_width + (i % columns) * (width + gap)) * 3;
        for (int64_t y = 0; y < height; y++)
            memcpy(corner + y * full_width * 3, images[i].rgb + y * width * 3, (size_t)width * 3);
    }
    return PB_OK;
}

pb_status pb_command_grid(int argc, char **argv) {
    const char *output = NULL, *columns_text = NULL, *gap_text = "0";
    pb_option_list files = {.count = 0};
    bool done;
    const pb_positional positionals[] = {{.name = "FILE", .help = "Pictures of one size.", .list = &files}};
    const pb_option options[] = {
        PB_OPTION_TEXT("--output", "-o", "FILE", &output, "The PNG to write. Required."),
        PB_OPTION_TEXT("--columns", "-c", "N", &columns_text, "Pictures in a row (all in one row)."),
        PB_OPTION_TEXT("--gap", "-g", "N", &gap_text, "White pixels between pictures (0)."),
    };
    const pb_command_line line = {.summary = "Puts pictures side by side into one PNG, row by row.",
                                  .positionals = positionals,
                                  .positional_count = PB_COUNT_OF(positionals),
                                  .options = options,
                                  .option_count = PB_COUNT_OF(options),
                                  .epilogue =
                                      "Example:\n  pagebooth grid before/grid.png after/grid.png --gap 8 -o both.png"};
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;
    if (!output) return pb_error(PB_ERR_USAGE, "--output is missing: where is the grid to go?");
    int64_t columns = files.count, gap;
    if (columns_text) PB_RETURN_IF(pb_parse_int("--columns", columns_text, 1, PB_OPTION_LIST_MAX, &columns));
    PB_RETURN_IF(pb_parse_int("--gap", gap_text, 0, 4096, &gap));

    pb_status status = PB_OK;
    pb_image grid = {0}, *images = calloc((size_t)files.count, sizeof *images);
    if (!images) PB_FAIL(PB_ERR_MEMORY, "no memory for %d pictures", files.count);
    PB_TRY(read_all(&files, images));
    PB_TRY(lay_out(images, files.count, (int)columns, (int)gap, &grid));
    PB_TRY(pb_image_write_png(output, &grid, NULL, 0));
fail:
    for (int i = 0; images && i < files.count; i++) pb_image_deinit(&images[i]);
    free(images);
    pb_image_deinit(&grid);
    return status;
}
