#include "train/dataset.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/fs.h"

// A file that is called one; what macOS leaves beside files ("._0.jpg") is not.
static bool is_named_picture(const char *path) {
    const char *name = pb_fs_base_name(path), *dot = strrchr(name, '.');
    return dot && dot != name && *name != '.' &&
           (!strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg") || !strcasecmp(dot, ".png"));
}

static pb_status judge(const char *path, bool *is_picture) {
    pb_image_kind kind;
    *is_picture = false;
    PB_RETURN_IF(pb_image_sniff_file(path, &kind));
    if (kind == PB_IMAGE_NONE && is_named_picture(path) && pb_fs_kind_of(path) == PB_FS_FILE)
        return pb_error(
            PB_ERR_FORMAT,
            "%s is no picture, whatever it is called: empty or damaged? Copy it anew, or move it out of the "
            "folder",
            path);
    if (kind == PB_IMAGE_NONE) return PB_OK;
    if (kind != PB_IMAGE_JPEG && kind != PB_IMAGE_PNG)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: a %s picture; convert it to PNG or JPEG, or move it out of the folder",
                        path, pb_image_kind_name(kind));
    *is_picture = true;
    return PB_OK;
}

pb_status pb_picture_set_list(pb_arena *arena, const char *folder, int64_t limit, bool strict, pb_picture_set *set) {
    const char **names;
    size_t count;
    *set = (pb_picture_set){.folder = pb_arena_string(arena, folder)};
    PB_RETURN_IF(pb_fs_list(arena, folder, &names, &count));
    set->names = pb_arena_array(arena, count + 1, sizeof *set->names);
    set->skipped = pb_arena_array(arena, count + 1, sizeof *set->skipped);
    if (!set->folder || !set->names || !set->skipped) return pb_error(PB_ERR_MEMORY, "no memory to list %s", folder);
    for (size_t i = 0; i < count && (!limit || set->count < limit); i++) {
        const char *path = pb_fs_join(arena, folder, names[i]);
        if (!path) return pb_error(PB_ERR_MEMORY, "no memory to list %s", folder);
        bool is_picture;
        PB_RETURN_IF(judge(path, &is_picture));
        if (is_picture)
            set->names[set->count++] = names[i];
        else if (strict)
            return pb_error(PB_ERR_FORMAT, "%s: no picture; move it out of the folder, or set strict_images: false",
                            path);
        else
            set->skipped[set->skipped_count++] = names[i];
    }
    set->images = pb_arena_array(arena, (size_t)set->count + 1, sizeof *set->images);
    if (!set->images) return pb_error(PB_ERR_MEMORY, "no memory to list %s", folder);
    return PB_OK;
}

static pb_status load_picture(const pb_picture_set *set, int64_t i, int32_t resolution) {
    pb_image image = {0};
    pb_arena *arena = pb_arena_create();
    pb_status status = PB_OK;
    const char *path = arena ? pb_fs_join(arena, set->folder, set->names[i]) : NULL;
    if (!path) PB_FAIL(PB_ERR_MEMORY, "no memory to read the pictures of %s", set->folder);
    PB_TRY(pb_image_load(path, NULL, &image));
    if ((status = pb_image_resize_shorter(&image, resolution, &set->images[i])) != PB_OK)
        pb_error_context(status, "%s", path);
fail:
    pb_image_deinit(&image);
    pb_arena_destroy(arena);
    return status;
}

pb_status pb_picture_set_load(pb_picture_set *set, int32_t resolution) {
    for (int64_t i = 0; i < set->count; i++) PB_RETURN_IF(load_picture(set, i, resolution));
    return PB_OK;
}

pb_status pb_picture_set_try(const pb_picture_set *set, int32_t resolution, pb_picture_sizes *sizes) {
    pb_status status = PB_OK;
    pb_image image = {0};
    pb_arena *arena = pb_arena_create();
    *sizes = (pb_picture_sizes){0};
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory to read the pictures of %s", set->folder);
    for (int64_t i = 0; i < set->count; i++) {
        const char *path = pb_fs_join(arena, set->folder, set->names[i]);
        if (!path) PB_FAIL(PB_ERR_MEMORY, "no memory to read the pictures of %s", set->folder);
        PB_TRY(pb_image_load(path, NULL, &image));
        const int32_t side = image.width < image.height ? image.width : image.height;
        sizes->enlarged += side < resolution;
        if (!sizes->smallest || side < sizes->side) {
            sizes->smallest = set->names[i];
            sizes->side = side;
        }
        pb_image_deinit(&image);
    }
fail:
    pb_arena_destroy(arena);
    return status;
}

void pb_picture_set_deinit(pb_picture_set *set) {
    for (int64_t i = 0; i < set->count; i++)
        if (set->images) pb_image_deinit(&set->images[i]);
}

void pb_picture_pixels(const pb_image *image, int32_t top, int32_t left, int32_t size, float *pixels) {
    for (int32_t y = 0; y < size; y++) {
        const uint8_t *row = image->rgb + 3 * ((size_t)(top + y) * (size_t)image->width + (size_t)left);
        for (int32_t i = 0; i < 3 * size; i++) *pixels++ = ((float)row[i] / 255.0f - 0.5f) / 0.5f;
    }
}
