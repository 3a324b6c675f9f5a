// pagebooth tokenize: lines {"text": ...} on stdin to lines {"ids": [...]} on stdout.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "io/model_dir.h"
#include "io/tokenizer.h"

// A folder with a tokenizer's files, or a model: a pipeline directory or a folder or name of the hub's cache.
static pb_status open_tokenizer(pb_arena *arena, const char *path, pb_tokenizer **tokenizer) {
    static const char *const signs[] = {"vocab.json", "tokenizer.json", "tokenizer"};
    for (int i = 0; i < 3; i++) {
        const char *const file = pb_fs_join(arena, path, signs[i]);
        if (!file) return pb_error(PB_ERR_MEMORY, "out of memory");
        if (pb_fs_kind_of(file) != PB_FS_NONE) return pb_tokenizer_create(path, tokenizer);
    }
    pb_model_dir *model;
    PB_RETURN_IF(pb_model_dir_open(path, NULL, &model));
    pb_status status = pb_model_dir_require(model, PB_PART_TOKENIZER);
    if (status == PB_OK) status = pb_tokenizer_create(model->parts[PB_PART_TOKENIZER].path, tokenizer);
    pb_model_dir_close(model);
    return status;
}

// The "text" of a line of JSON; it lives in the arena.
static pb_status read_line(pb_arena *arena, const char *line, size_t bytes, const pb_json **text) {
    const pb_json *root;
    PB_RETURN_IF(pb_json_parse(arena, line, bytes, "stdin", &root));
    *text = pb_json_get(root, "text");
    if (*text && (*text)->type == PB_JSON_STRING) return PB_OK;
    return pb_error(PB_ERR_FORMAT, "expected an object with a string \"text\"");
}

static pb_status tokenize_line(const pb_tokenizer *tokenizer, const char *line, size_t bytes, int32_t *ids) {
    pb_status status = PB_OK;
    const int32_t length = pb_tokenizer_length(tokenizer);
    const pb_json *text;
    pb_arena *const arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "out of memory");
    PB_TRY(read_line(arena, line, bytes, &text));
    PB_TRY(pb_tokenizer_encode(tokenizer, text->string, text->string_bytes, length, ids));
    printf("{\"ids\": [%d", ids[0]);
    for (int32_t i = 1; i < length; i++) printf(", %d", ids[i]);
    puts("]}");
fail:
    pb_arena_destroy(arena);
    return status;
}

pb_status pb_command_tokenize(int argc, char **argv) {
    const char *path = NULL;
    const pb_positional positionals[] = {
        {.name = "MODEL_OR_TOKENIZER_DIR", .help = "A pipeline directory, or its tokenizer's folder.", .text = &path},
    };
    const pb_command_line line = {
        .summary = "Reads lines {\"text\": ...} from stdin and writes a line {\"ids\": [...]} for each: BOS, the\n"
                   "text's tokens, EOS and padding, as many ids as the tokenizer's model_max_length says (77).",
        .positionals = positionals,
        .positional_count = PB_COUNT_OF(positionals),
        .epilogue = "Example:\n  echo '{\"text\": \"a photo of sks dog\"}' | pagebooth tokenize MODEL\n",
    };
    bool done = false;
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;

    pb_status status = PB_OK;
    pb_tokenizer *tokenizer = NULL;
    int32_t *ids = NULL;
    char *text = NULL;
    size_t capacity = 0;
    ssize_t bytes;
    pb_arena *const arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "out of memory");
    PB_TRY(open_tokenizer(arena, path, &tokenizer));
    ids = malloc((size_t)pb_tokenizer_length(tokenizer) * sizeof *ids);
    if (!ids) PB_FAIL(PB_ERR_MEMORY, "out of memory");
    errno = 0;
    for (long long number = 1; (bytes = getline(&text, &capacity, stdin)) >= 0; number++) {
        status = tokenize_line(tokenizer, text, (size_t)bytes, ids);
        if (status != PB_OK) {
            status = pb_error_context(status, "line %lld", number);
            goto fail;
        }
    }
    if (ferror(stdin)) PB_FAIL(PB_ERR_IO, "reading stdin: %s", strerror(errno));
    if (fflush(stdout) != 0) PB_FAIL(PB_ERR_IO, "writing stdout: %s", strerror(errno));
fail:
    free(text);
    free(ids);
    pb_tokenizer_destroy(tokenizer);
    pb_arena_destroy(arena);
    return status;
}
