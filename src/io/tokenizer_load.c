// What is in a tokenizer's files: vocabulary, merges, settings.
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "io/tokenizer_internal.h"
#include "io/unicode.h"

enum { DEFAULT_LENGTH = 77, MOST_LENGTH = 1 << 16 };  // ids per prompt

static int by_text(const void *a, const void *b) {
    const pb_vocab_entry *const left = a, *const right = b;
    const size_t common = left->bytes < right->bytes ? left->bytes : right->bytes;
    const int order = memcmp(left->text, right->text, common);
    return order ? order : (left->bytes > right->bytes) - (left->bytes < right->bytes);
}

int32_t pb_vocab_find(const pb_tokenizer *t, const char *text, size_t bytes) {
    const pb_vocab_entry key = {.text = text, .bytes = bytes};
    const pb_vocab_entry *const found = bsearch(&key, t->vocab, (size_t)t->vocab_size, sizeof key, by_text);
    return found ? found->id : -1;
}

static pb_status read_vocab(pb_tokenizer *t, const pb_json *root) {
    if (!root || root->type != PB_JSON_OBJECT || root->count == 0)
        return pb_error(PB_ERR_FORMAT, "%s: the vocabulary is not an object of tokens and ids", t->name);
    if (root->count > INT32_MAX / 2) return pb_error(PB_ERR_UNSUPPORTED, "%s: the vocabulary is too large", t->name);
    t->vocab = pb_arena_array(t->arena, root->count, sizeof *t->vocab);
    bool *const seen = pb_arena_array(t->arena, root->count, sizeof *seen);
    if (!t->vocab || !seen) return pb_error(PB_ERR_MEMORY, "out of memory for %zu tokens", root->count);
    t->vocab_size = (int32_t)root->count;
    size_t at = 0;
    for (const pb_json *entry = root->first; entry; entry = entry->next, at++) {
        if (!entry->is_integer || entry->integer < 0 || entry->integer >= t->vocab_size)
            return pb_error(PB_ERR_FORMAT, "%s: the vocabulary's id of \"%s\" is not an integer from 0 to %d", t->name,
                            entry->key, t->vocab_size - 1);
        if (seen[entry->integer])
            return pb_error(PB_ERR_FORMAT, "%s: two tokens of the vocabulary have the id %lld; one is \"%s\"", t->name,
                            (long long)entry->integer, entry->key);
        seen[entry->integer] = true;
        t->vocab[at] = (pb_vocab_entry){.text = entry->key, .bytes = entry->key_bytes, .id = (int32_t)entry->integer};
    }
    qsort(t->vocab, at, sizeof *t->vocab, by_text);
    return PB_OK;
}

// The byte-level alphabet: a printable byte of Latin 1 stands for itself, the others for U+0100, U+0101, ...
static void read_bytes(pb_tokenizer *t) {
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; byte++) {
        const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
        unsigned char letter[16];
        const size_t bytes = pb_unicode_encode(printable ? byte : next++, letter);
        memcpy(letter + bytes, "</w>", 4);
        t->bytes[byte][0] = pb_vocab_find(t, (const char *)letter, bytes);
        t->bytes[byte][1] = pb_vocab_find(t, (const char *)letter, bytes + 4);
    }
}

static int by_pair(const void *a, const void *b) {
    const pb_merge *const left = a, *const right = b;
    if (left->first != right->first) return left->first < right->first ? -1 : 1;
    if (left->second != right->second) return left->second < right->second ? -1 : 1;
    return (left->rank > right->rank) - (left->rank < right->rank);
}

// Keeps, of merges of the same pair, the last.
static void finish_merges(pb_tokenizer *t) {
    qsort(t->merges, t->merge_count, sizeof *t->merges, by_pair);
    size_t kept = 0;
    for (size_t i = 0; i < t->merge_count; i++) {
        const pb_merge *const merge = &t->merges[i];
        const pb_merge *const last = kept ? &t->merges[kept - 1] : NULL;
        const bool same = last && last->first == merge->first && last->second == merge->second;
        t->merges[kept - same] = *merge;
        kept += !same;
    }
    t->merge_count = kept;
}

// `a` and `b` are within the text of a line or of two strings; `spare` has room for both.
static pb_status add_merge(pb_tokenizer *t, const char *a, size_t a_bytes, const char *b, size_t b_bytes, char *spare) {
    const size_t number = t->merge_count + 1;
    memcpy(spare, a, a_bytes);
    memcpy(spare + a_bytes, b, b_bytes);
    const pb_merge merge = {.first = pb_vocab_find(t, a, a_bytes),
                            .second = pb_vocab_find(t, b, b_bytes),
                            .result = pb_vocab_find(t, spare, a_bytes + b_bytes),
                            .rank = (int32_t)t->merge_count};
    if (merge.first < 0 || merge.second < 0 || merge.result < 0)
        return pb_error(PB_ERR_FORMAT, "%s: merge %zu, \"%.*s %.*s\": %s is not in the vocabulary", t->name, number,
                        (int)(a_bytes < 40 ? a_bytes : 40), a, (int)(b_bytes < 40 ? b_bytes : 40), b,
                        merge.result < 0 && merge.first >= 0 && merge.second >= 0 ? "the result" : "a part");
    t->merges[t->merge_count++] = merge;
    return PB_OK;
}

// "first second", separated by one blank.
static pb_status add_merge_line(pb_tokenizer *t, const char *line, size_t bytes, char *spare) {
    const char *const blank = memchr(line, ' ', bytes);
    if (!blank || memchr(blank + 1, ' ', (size_t)(line + bytes - blank - 1)))
        return pb_error(PB_ERR_FORMAT, "%s: merge %zu is not two parts with a blank between them", t->name,
                        t->merge_count + 1);
    const size_t first = (size_t)(blank - line);
    return add_merge(t, line, first, blank + 1, bytes - first - 1, spare);
}

static pb_status allocate_merges(pb_tokenizer *t, size_t most, size_t longest, char **spare) {
    if (most > INT32_MAX) return pb_error(PB_ERR_UNSUPPORTED, "%s: too many merges", t->name);
    t->merges = pb_arena_array(t->arena, most, sizeof *t->merges);
    *spare = pb_arena_alloc(t->arena, longest);
    if (!t->merges || !*spare) return pb_error(PB_ERR_MEMORY, "out of memory for %zu merges", most);
    return PB_OK;
}

static pb_status read_merges_text(pb_tokenizer *t, pb_tokenizer_text text) {
    size_t lines = 1, longest = 0;
    const char *const end = text.data + text.bytes;
    for (const char *at = text.data, *line = at; at < end;) {
        const size_t bytes = pb_utf8_sequence(at, end);
        if (bytes == 0)
            return pb_error(PB_ERR_FORMAT, "%s/merges.txt is not UTF-8 at byte %zu", t->name, (size_t)(at - text.data));
        at += bytes;
        if ((size_t)(at - line) > longest) longest = (size_t)(at - line);
        if (at[-1] != '\n') continue;
        lines++;
        line = at;
    }
    char *spare;
    PB_RETURN_IF(allocate_merges(t, lines, longest, &spare));
    for (const char *line = text.data; line < end;) {
        const char *const newline = memchr(line, '\n', (size_t)(end - line));
        size_t bytes = (size_t)((newline ? newline : end) - line);
        if (newline && bytes && line[bytes - 1] == '\r') bytes--;
        if (bytes < 8 || memcmp(line, "#version", 8) != 0) PB_RETURN_IF(add_merge_line(t, line, bytes, spare));
        line = newline ? newline + 1 : end;
    }
    return PB_OK;
}

// tokenizer.json has them as "first second" or ["first", "second"].
static pb_status read_merges_json(pb_tokenizer *t, const pb_json *list) {
    if (!list || list->type != PB_JSON_ARRAY)
        return pb_error(PB_ERR_FORMAT, "%s/tokenizer.json: model.merges is not a list", t->name);
    size_t longest = 0;
    for (const pb_json *entry = list->first; entry; entry = entry->next) {
        const pb_json *const second = entry->first ? entry->first->next : NULL;
        const bool pair = entry->type == PB_JSON_ARRAY && entry->count == 2 && entry->first->type == PB_JSON_STRING &&
                          second->type == PB_JSON_STRING;
        if (!pair && entry->type != PB_JSON_STRING)
            return pb_error(PB_ERR_FORMAT, "%s/tokenizer.json: a merge is neither a string nor two", t->name);
        const size_t bytes = pair ? entry->first->string_bytes + second->string_bytes : entry->string_bytes;
        if (bytes > longest) longest = bytes;
    }
    char *spare;
    PB_RETURN_IF(allocate_merges(t, list->count, longest, &spare));
    for (const pb_json *entry = list->first; entry; entry = entry->next) {
        const pb_json *const a = entry->first, *const b = a ? a->next : NULL;
        if (entry->type == PB_JSON_STRING)
            PB_RETURN_IF(add_merge_line(t, entry->string, entry->string_bytes, spare));
        else
            PB_RETURN_IF(add_merge(t, a->string, a->string_bytes, b->string, b->string_bytes, spare));
    }
    return PB_OK;
}

static pb_status read_settings(pb_tokenizer *t, const pb_json *config) {
    static const char file[] = "tokenizer_config.json";
    const char *class_name, *side;
    bool flag;
    PB_RETURN_IF(pb_json_get_string(config, "tokenizer_class", "CLIPTokenizer", t->name, &class_name));
    if (strcmp(class_name, "CLIPTokenizer") != 0 && strcmp(class_name, "CLIPTokenizerFast") != 0)
        return pb_error(PB_ERR_UNSUPPORTED, "%s/%s: tokenizer_class is \"%s\", not CLIPTokenizer", t->name, file,
                        class_name);
    static const char *const sides[] = {"padding_side", "truncation_side"};
    for (int i = 0; i < 2; i++) {
        PB_RETURN_IF(pb_json_get_string(config, sides[i], "right", t->name, &side));
        if (strcmp(side, "right") != 0)
            return pb_error(PB_ERR_UNSUPPORTED, "%s/%s: %s \"%s\" is not supported", t->name, file, sides[i], side);
    }
    PB_RETURN_IF(pb_json_get_bool(config, "split_special_tokens", false, t->name, &flag));
    if (flag) return pb_error(PB_ERR_UNSUPPORTED, "%s/%s: split_special_tokens is not supported", t->name, file);
    // Where it is unlimited, transformers writes 1e30.
    double length;
    const char *const key = pb_json_get(config, "model_max_length") ? "model_max_length" : "max_len";
    PB_RETURN_IF(pb_json_get_double(config, key, DEFAULT_LENGTH, t->name, &length));
    if (!(length >= 2) || (length <= MOST_LENGTH && length != (int32_t)length))
        return pb_error(PB_ERR_FORMAT, "%s/%s: %s is not a number of ids from 2 on", t->name, file, key);
    t->length = length > MOST_LENGTH ? DEFAULT_LENGTH : (int32_t)length;
    return PB_OK;
}

static pb_status parse(pb_tokenizer *t, pb_tokenizer_text text, const char *file, const pb_json **root) {
    *root = NULL;
    if (!text.data) return PB_OK;
    const char *const path = pb_arena_format(t->arena, "%s/%s", t->name, file);
    if (!path) return pb_error(PB_ERR_MEMORY, "out of memory");
    PB_RETURN_IF(pb_json_parse(t->arena, text.data, text.bytes, path, root));
    if ((*root)->type != PB_JSON_OBJECT) return pb_error(PB_ERR_FORMAT, "%s is not a JSON object", path);
    return PB_OK;
}

static pb_status read_all(pb_tokenizer *t, const pb_tokenizer_files *files) {
    const pb_json *unified, *vocab;
    pb_tokenizer_settings settings = {0};
    PB_RETURN_IF(parse(t, files->unified, "tokenizer.json", &unified));
    PB_RETURN_IF(parse(t, files->config, "tokenizer_config.json", &settings.config));
    PB_RETURN_IF(parse(t, files->special, "special_tokens_map.json", &settings.special));
    PB_RETURN_IF(parse(t, files->added, "added_tokens.json", &settings.added_map));
    if (unified) {
        const pb_json *const model = pb_json_get(unified, "model");
        PB_RETURN_IF(read_vocab(t, pb_json_get(model, "vocab")));
        PB_RETURN_IF(read_merges_json(t, pb_json_get(model, "merges")));
        settings.added_list = pb_json_get(unified, "added_tokens");
    } else if (files->vocab.data && files->merges.data) {
        PB_RETURN_IF(parse(t, files->vocab, "vocab.json", &vocab));
        PB_RETURN_IF(read_vocab(t, vocab));
        PB_RETURN_IF(read_merges_text(t, files->merges));
    } else {
        return pb_error(PB_ERR_FORMAT, "%s has neither tokenizer.json nor vocab.json and merges.txt", t->name);
    }
    finish_merges(t);
    read_bytes(t);
    PB_RETURN_IF(read_settings(t, settings.config));
    return pb_tokenizer_read_added(t, &settings);
}

pb_status pb_tokenizer_create_from(const pb_tokenizer_files *files, const char *name, pb_tokenizer **tokenizer) {
    pb_status status = PB_OK;
    pb_tokenizer *t = NULL;
    pb_arena *const arena = pb_arena_create();
    if (!arena || !(t = pb_arena_alloc(arena, sizeof *t))) PB_FAIL(PB_ERR_MEMORY, "out of memory");
    *t = (pb_tokenizer){.arena = arena, .name = pb_arena_string(arena, name)};
    if (!t->name) PB_FAIL(PB_ERR_MEMORY, "out of memory");
    PB_TRY(read_all(t, files));
    *tokenizer = t;
    return PB_OK;
fail:
    pb_arena_destroy(arena);
    return status;
}

void pb_tokenizer_destroy(pb_tokenizer *tokenizer) {
    if (tokenizer) pb_arena_destroy(tokenizer->arena);
}
