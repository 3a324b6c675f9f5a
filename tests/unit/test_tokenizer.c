// test: links=io,base
// The tokenizer against transformers' (tests/golden/tokenizer/), files that are none, and words that could be slow.
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "check.h"
#include "io/tokenizer.h"

#define GOLDEN PB_TEST_DATA "/golden/tokenizer/"

enum { LIMIT = 1 << 20, LONGEST = 64 };

static pb_tokenizer_text read_golden(pb_arena *arena, const char *file) {
    pb_tokenizer_text text = {0};
    char *data = NULL;
    CHECK_OK(pb_fs_read_file(arena, pb_fs_join(arena, GOLDEN, file), LIMIT, &data, &text.bytes));
    text.data = data;
    return text;
}

static const pb_json *parse(pb_arena *arena, pb_tokenizer_text text, const char *name) {
    const pb_json *root = NULL;
    CHECK_OK(pb_json_parse(arena, text.data, text.bytes, name, &root));
    return root;
}

static pb_tokenizer_text member(const pb_json *object, const char *key) {
    const pb_json *const value = pb_json_get(object, key);
    return value ? (pb_tokenizer_text){value->string, value->string_bytes} : (pb_tokenizer_text){0};
}

static void check_case(const pb_tokenizer *tokenizer, const pb_json *line) {
    const pb_json *const text = pb_json_get(line, "text");
    const pb_json *id = pb_json_get(line, "ids")->first;
    const int32_t length = (int32_t)pb_json_get(line, "length")->integer;
    int32_t ids[LONGEST];
    CHECK(length <= LONGEST);
    CHECK_OK(pb_tokenizer_encode(tokenizer, text->string, text->string_bytes, length, ids));
    int wrong = 0;
    for (int32_t i = 0; i < length; i++, id = id->next) wrong += ids[i] != id->integer;
    CHECK_THAT(wrong == 0, "%s: \"%s\": %d ids differ", pb_json_get(line, "tokenizer")->string, text->string, wrong);
}

// The lines of cases.jsonl that are about one tokenizer.
static int check_cases(pb_arena *arena, pb_tokenizer_text cases, const char *name, const pb_tokenizer *tokenizer) {
    int count = 0;
    for (const char *at = cases.data; at < cases.data + cases.bytes;) {
        const char *const end = strchr(at, '\n');
        const pb_json *const line = parse(arena, (pb_tokenizer_text){at, (size_t)(end - at)}, "cases.jsonl");
        if (strcmp(pb_json_get(line, "tokenizer")->string, name) == 0) {
            check_case(tokenizer, line);
            count++;
        }
        at = end + 1;
    }
    return count;
}

static void check_golden(pb_arena *arena) {
    const pb_tokenizer_text cases = read_golden(arena, "cases.jsonl");
    const pb_json *const configs = parse(arena, read_golden(arena, "configs.json"), "configs.json");
    pb_tokenizer *tokenizer = NULL;
    for (const pb_json *set = configs->first; set; set = set->next) {
        const pb_tokenizer_files files = {.vocab = read_golden(arena, "vocab.json"),
                                          .merges = read_golden(arena, "merges.txt"),
                                          .config = member(set, "config"),
                                          .special = member(set, "special"),
                                          .added = member(set, "added")};
        CHECK_OK(pb_tokenizer_create_from(&files, set->key, &tokenizer));
        CHECK_THAT(check_cases(arena, cases, set->key, tokenizer) == 41, "%s", set->key);
        const bool added = strcmp(set->key, "added") == 0 || strcmp(set->key, "map") == 0;
        CHECK(pb_tokenizer_size(tokenizer) == 1414 + (added ? 2 : strcmp(set->key, "extra") == 0 ? 3 : 0));
        CHECK(pb_tokenizer_length(tokenizer) == (added ? 20 : 77));
        pb_tokenizer_destroy(tokenizer);
    }
    const pb_tokenizer_files unified = {.unified = read_golden(arena, "tokenizer.json")};
    CHECK_OK(pb_tokenizer_create_from(&unified, "unified", &tokenizer));
    CHECK(check_cases(arena, cases, "unified", tokenizer) == 21);
    pb_tokenizer_destroy(tokenizer);
}

// From a folder, and from a model's directory above it.
static void check_folders(void) {
    pb_tokenizer *tokenizer = NULL;
    char model[] = "/tmp/test_tokenizer_XXXXXX", link[64];
    CHECK(mkdtemp(model) != NULL);
    CHECK(pb_tokenizer_create(model, &tokenizer) == PB_ERR_FORMAT && strstr(pb_error_message(), "vocab.json"));
    snprintf(link, sizeof link, "%s/tokenizer", model);
    CHECK(symlink(PB_TEST_DATA "/golden/tokenizer", link) == 0);
    CHECK_OK(pb_tokenizer_create(model, &tokenizer));
    CHECK(pb_tokenizer_size(tokenizer) == 556);  // tokenizer.json goes first
    pb_tokenizer_destroy(tokenizer);
    CHECK(unlink(link) == 0 && rmdir(model) == 0);
    CHECK(pb_tokenizer_create(model, &tokenizer) == PB_ERR_IO && strstr(pb_error_message(), model));
}

static pb_status create(const char *vocab, const char *merges, const char *config, pb_tokenizer **tokenizer) {
    const pb_tokenizer_files files = {.vocab = {vocab, strlen(vocab)},
                                      .merges = {merges, strlen(merges)},
                                      .config = {config, config ? strlen(config) : 0}};
    return pb_tokenizer_create_from(&files, "folder", tokenizer);
}

static void check_refused(const char *vocab, const char *merges, const char *config, pb_status status,
                          const char *what) {
    pb_tokenizer *tokenizer = NULL;
    const pb_status given = create(vocab, merges, config, &tokenizer);
    CHECK_THAT(given == status, "%s | %s | %s", vocab, merges, config ? config : "-");
    CHECK_THAT(strstr(pb_error_message(), what), "\"%s\" does not say %s", pb_error_message(), what);
}

#define ENDS "\"<|startoftext|>\": 0, \"<|endoftext|>\": 1"
#define GOOD "{" ENDS ", \"a\": 2, \"b</w>\": 3, \"ab</w>\": 4}"

static void check_bad_files(void) {
    pb_tokenizer *tokenizer = NULL;
    int32_t ids[8];
    CHECK_OK(create(GOOD, "#version: 0.2\r\na b</w>\r\n", NULL, &tokenizer));
    CHECK_OK(pb_tokenizer_encode(tokenizer, "ab x", 4, 5, ids));
    CHECK(ids[0] == 0 && ids[1] == 4 && ids[2] == 1 && ids[3] == 1 && ids[4] == 1);
    CHECK(pb_tokenizer_encode(tokenizer, "ab\xff", 3, 5, ids) == PB_ERR_FORMAT && strstr(pb_error_message(), "byte 2"));
    pb_tokenizer_destroy(tokenizer);

    check_refused("[]", "", NULL, PB_ERR_FORMAT, "vocab.json");
    check_refused("{}", "", NULL, PB_ERR_FORMAT, "vocabulary");
    check_refused("{\"a\": \"0\"}", "", NULL, PB_ERR_FORMAT, "\"a\"");
    check_refused("{\"a\": 0, \"b\": 2}", "", NULL, PB_ERR_FORMAT, "\"b\"");
    check_refused("{\"a\": -1}", "", NULL, PB_ERR_FORMAT, "\"a\"");
    check_refused("{\"a\": 0.5}", "", NULL, PB_ERR_FORMAT, "\"a\"");
    check_refused("{\"a\": 99999999999}", "", NULL, PB_ERR_FORMAT, "\"a\"");
    check_refused("{\"a\": 1, \"b\": 1}", "", NULL, PB_ERR_FORMAT, "id 1");
    check_refused("{\"a\": 0}", "", NULL, PB_ERR_FORMAT, "unk_token");
    check_refused(GOOD, "a", NULL, PB_ERR_FORMAT, "merge 1");
    check_refused(GOOD, "a b</w> c", NULL, PB_ERR_FORMAT, "merge 1");
    check_refused(GOOD, "a b</w>\n\na b</w>", NULL, PB_ERR_FORMAT, "merge 2");
    check_refused(GOOD, "a c", NULL, PB_ERR_FORMAT, "a part");
    check_refused(GOOD, "a a", NULL, PB_ERR_FORMAT, "the result");
    check_refused(GOOD, "a \xc3", NULL, PB_ERR_FORMAT, "UTF-8");
    check_refused(GOOD, "", "{\"tokenizer_class\": \"T5Tokenizer\"}", PB_ERR_UNSUPPORTED, "tokenizer_class");
    check_refused(GOOD, "", "{\"padding_side\": \"left\"}", PB_ERR_UNSUPPORTED, "padding_side");
    check_refused(GOOD, "", "{\"split_special_tokens\": true}", PB_ERR_UNSUPPORTED, "split_special_tokens");
    check_refused(GOOD, "", "{\"model_max_length\": 1}", PB_ERR_FORMAT, "model_max_length");
    check_refused(GOOD, "", "{\"model_max_length\": 2.5}", PB_ERR_FORMAT, "model_max_length");
    check_refused(GOOD, "", "{\"model_max_length\": \"77\"}", PB_ERR_FORMAT, "model_max_length");
    check_refused(GOOD, "", "{\"pad_token\": null}", PB_ERR_FORMAT, "pad_token");
    check_refused(GOOD, "", "{\"bos_token\": 5}", PB_ERR_FORMAT, "bos_token");
    check_refused(GOOD, "", "{\"bos_token\": {\"content\": \"x\", \"single_word\": true}}", PB_ERR_UNSUPPORTED,
                  "single_word");
    check_refused(GOOD, "", "{\"added_tokens_decoder\": {\"x\": {}}}", PB_ERR_FORMAT, "added_tokens_decoder");
    check_refused(GOOD, "", "{\"unk_token\": \"none\"}", PB_ERR_FORMAT, "\"none\"");
}

// A word of 64 KiB must not take a time that grows with its square.
static void check_long(pb_arena *arena) {
    const pb_tokenizer_files files = {.vocab = read_golden(arena, "vocab.json"),
                                      .merges = read_golden(arena, "merges.txt")};
    pb_tokenizer *tokenizer = NULL;
    CHECK_OK(pb_tokenizer_create_from(&files, "long", &tokenizer));
    static const char *const units[] = {"a", "the", "\"", " ", "\xcc\xa3\xcc\x81", "<|endoftext|>"};
    enum { BYTES = 65536 };
    char *const text = malloc(BYTES);
    int32_t ids[77];
    const clock_t start = clock();
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        const size_t unit = strlen(units[u]);
        for (size_t i = 0; i < BYTES; i++) text[i] = units[u][i % unit];
        CHECK_OK(pb_tokenizer_encode(tokenizer, text, BYTES - BYTES % unit, 77, ids));
    }
    CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 5);
    free(text);
    pb_tokenizer_destroy(tokenizer);
}

int main(void) {
    pb_arena *const arena = pb_arena_create();
    check_golden(arena);
    check_folders();
    check_bad_files();
    check_long(arena);
    pb_arena_destroy(arena);
    return CHECK_DONE();
}
