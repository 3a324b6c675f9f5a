// Reading a tokenizer's files from its folder.
#include "base/fs.h"
#include "io/tokenizer.h"

enum { FILE_LIMIT = 256 << 20 };

static pb_status read_text(pb_arena *arena, const char *folder, const char *file, pb_tokenizer_text *text) {
    char *data = NULL;
    const char *const path = pb_fs_join(arena, folder, file);
    if (!path) return pb_error(PB_ERR_MEMORY, "out of memory");
    if (pb_fs_kind_of(path) == PB_FS_NONE) return PB_OK;
    PB_RETURN_IF(pb_fs_read_file(arena, path, FILE_LIMIT, &data, &text->bytes));
    text->data = data;
    return PB_OK;
}

pb_status pb_tokenizer_create(const char *path, pb_tokenizer **tokenizer) {
    pb_status status = PB_OK;
    pb_tokenizer_files files = {0};
    pb_arena *const arena = pb_arena_create();
    if (!arena) PB_FAIL(PB_ERR_MEMORY, "out of memory");
    const char *folder = pb_fs_join(arena, path, "tokenizer");
    if (!folder) PB_FAIL(PB_ERR_MEMORY, "out of memory");
    if (pb_fs_kind_of(folder) != PB_FS_DIRECTORY) folder = path;
    if (pb_fs_kind_of(folder) != PB_FS_DIRECTORY) PB_FAIL(PB_ERR_IO, "%s is not a folder", path);
    PB_TRY(read_text(arena, folder, "tokenizer.json", &files.unified));
    if (!files.unified.data) {
        PB_TRY(read_text(arena, folder, "vocab.json", &files.vocab));
        PB_TRY(read_text(arena, folder, "merges.txt", &files.merges));
    }
    PB_TRY(read_text(arena, folder, "tokenizer_config.json", &files.config));
    PB_TRY(read_text(arena, folder, "special_tokens_map.json", &files.special));
    PB_TRY(read_text(arena, folder, "added_tokens.json", &files.added));
    PB_TRY(pb_tokenizer_create_from(&files, folder, tokenizer));
fail:
    pb_arena_destroy(arena);
    return status;
}
