// The tokens with a name and the added ones: which there are, their ids, and how they are matched. The rules are those
// by which transformers loads a tokenizer and tokenizers keeps its added vocabulary.
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer_internal.h"
#include "io/unicode.h"

enum { MOST_ADDED = 4096 };  // more would make matching slow

// A token as the configuration files describe it.
typedef struct description {
    const char *content;
    size_t bytes;
    bool left_strip, right_strip, special;
    int normalized;  // -1: not said, then "not special"
    bool plain;      // just a string
    int64_t index;   // the place that added tokens are sorted by
} description;

typedef struct description_list {
    description *items;  // (MOST_ADDED)
    size_t count;
} description_list;

static bool is_text(const description *d, const char *text, size_t bytes) {
    return d->bytes == bytes && memcmp(d->content, text, bytes) == 0;
}

static bool is_normalized(const description *d) {
    return d->normalized < 0 ? !d->special : d->normalized;
}

static bool is_same(const description *a, const description *b) {
    if (a->plain != b->plain || !is_text(a, b->content, b->bytes)) return false;
    if (a->plain) return true;
    return a->left_strip == b->left_strip && a->right_strip == b->right_strip && a->special == b->special &&
           is_normalized(a) == is_normalized(b);
}

// A JSON string, or an object with "content" and flags.
static pb_status describe(const pb_json *value, const char *key, const char *name, description *d) {
    *d = (description){.normalized = -1};
    const pb_json *content = value;
    if (value->type == PB_JSON_STRING) {
        d->plain = true;
    } else {
        bool single_word = false, normalized = false;
        content = pb_json_get(value, "content");
        PB_RETURN_IF(pb_json_get_bool(value, "lstrip", false, name, &d->left_strip));
        PB_RETURN_IF(pb_json_get_bool(value, "rstrip", false, name, &d->right_strip));
        PB_RETURN_IF(pb_json_get_bool(value, "special", false, name, &d->special));
        PB_RETURN_IF(pb_json_get_bool(value, "single_word", false, name, &single_word));
        PB_RETURN_IF(pb_json_get_bool(value, "normalized", false, name, &normalized));
        if (single_word) return pb_error(PB_ERR_UNSUPPORTED, "%s: single_word of \"%s\" is not supported", name, key);
        if (pb_json_get(value, "normalized")) d->normalized = normalized;
    }
    if (!content || content->type != PB_JSON_STRING || content->string_bytes == 0)
        return pb_error(PB_ERR_FORMAT, "%s: \"%s\" is not a token: a string, or an object with \"content\"", name, key);
    d->content = content->string;
    d->bytes = content->string_bytes;
    return PB_OK;
}

static pb_status append(description_list *list, const description *d, const char *name) {
    if (list->count == MOST_ADDED)
        return pb_error(PB_ERR_UNSUPPORTED, "%s: more than %d added tokens", name, MOST_ADDED);
    list->items[list->count++] = *d;
    return PB_OK;
}

static int by_index(const void *a, const void *b) {
    const int64_t left = ((const description *)a)->index, right = ((const description *)b)->index;
    return (left > right) - (left < right);
}

// `added_tokens_decoder` ({"49406": {...}}), or else tokenizer.json's list and added_tokens.json ({"<x>": 49408}).
static pb_status read_added_lists(const pb_tokenizer_settings *s, const char *name, description_list *list) {
    const pb_json *const decoder = pb_json_get(s->config, "added_tokens_decoder");
    description d;
    for (const pb_json *entry = decoder ? decoder->first : NULL; entry; entry = entry->next) {
        char *end = NULL;
        const long long index = entry->key ? strtoll(entry->key, &end, 10) : 0;
        if (!entry->key || end == entry->key || *end || entry->type != PB_JSON_OBJECT)
            return pb_error(PB_ERR_FORMAT, "%s: added_tokens_decoder maps ids to objects", name);
        PB_RETURN_IF(describe(entry, entry->key, name, &d));
        d.index = index;
        PB_RETURN_IF(append(list, &d, name));
    }
    for (const pb_json *entry = s->added_map && !decoder ? s->added_map->first : NULL; entry; entry = entry->next) {
        if (!entry->key || !entry->is_integer || entry->key_bytes == 0)
            return pb_error(PB_ERR_FORMAT, "%s/added_tokens.json maps tokens to ids", name);
        d = (description){.content = entry->key, .bytes = entry->key_bytes, .normalized = -1, .index = entry->integer};
        PB_RETURN_IF(append(list, &d, name));
    }
    for (const pb_json *entry = s->added_list && !decoder ? s->added_list->first : NULL; entry; entry = entry->next) {
        PB_RETURN_IF(describe(entry, "added_tokens", name, &d));
        PB_RETURN_IF(pb_json_get_int(entry, "id", 0, INT32_MAX, 0, name, &d.index));
        size_t same = 0;  // the same id again replaces
        while (same < list->count && list->items[same].index != d.index) same++;
        if (same < list->count)
            list->items[same] = d;
        else
            PB_RETURN_IF(append(list, &d, name));
    }
    qsort(list->items, list->count, sizeof *list->items, by_index);
    return PB_OK;
}

// The value of "bos_token" and the like: special_tokens_map.json goes first, unless the added tokens are in the config.
static const pb_json *named_value(const pb_tokenizer_settings *s, const char *key, bool *from_map) {
    const pb_json *const mapped = pb_json_get(s->config, "added_tokens_decoder") ? NULL : pb_json_get(s->special, key);
    *from_map = mapped != NULL;
    return mapped ? mapped : pb_json_get(s->config, key);
}

typedef struct named {
    const char *key, *fallback;
    description token;
    bool present;
} named;

static pb_status read_named(const pb_tokenizer_settings *s, const char *name, named *n) {
    bool from_map;
    const pb_json *const value = named_value(s, n->key, &from_map);
    n->present = value ? value->type != PB_JSON_NULL : n->fallback != NULL;
    if (!n->present && n->fallback)
        return pb_error(PB_ERR_FORMAT, "%s: %s is null, but CLIP's tokenizer needs one", name, n->key);
    if (!n->present) return PB_OK;
    if (!value) {
        n->token = (description){.content = n->fallback, .bytes = strlen(n->fallback), .normalized = -1, .plain = true};
        return PB_OK;
    }
    PB_RETURN_IF(describe(value, n->key, name, &n->token));
    if (from_map && !n->token.plain) n->token.special = true;
    return PB_OK;
}

static bool is_listed(const description_list *list, size_t count, const description *d) {
    for (size_t i = 0; i < count; i++)
        if (is_text(&list->items[i], d->content, d->bytes)) return true;
    return false;
}

// What is neither among the first `added` (by its text) nor in the list (with all its flags) goes to the list's end.
static pb_status append_new(description_list *list, size_t added, const description *d, const char *name) {
    if (is_listed(list, added, d)) return PB_OK;
    for (size_t i = 0; i < list->count; i++)
        if (is_same(&list->items[i], d)) return PB_OK;
    return append(list, d, name);
}

static pb_status read_extra(const pb_tokenizer_settings *s, const char *name, size_t added, description_list *list) {
    bool from_map;
    const pb_json *extra = named_value(s, "extra_special_tokens", &from_map);
    if (!extra || extra->count == 0) extra = named_value(s, "additional_special_tokens", &from_map);
    for (const pb_json *entry = extra ? extra->first : NULL; entry; entry = entry->next) {
        description d;
        PB_RETURN_IF(describe(entry, "extra_special_tokens", name, &d));
        if (from_map && !d.plain) d.special = true;
        PB_RETURN_IF(append_new(list, added, &d, name));
    }
    return PB_OK;
}

static pb_status pattern_of(pb_arena *arena, pb_added_token *token) {
    uint32_t *const points = pb_arena_array(arena, token->bytes, sizeof *points);
    if (!points) return pb_error(PB_ERR_MEMORY, "out of memory");
    size_t count = 0;
    for (const char *at = token->content; at < token->content + token->bytes;) points[count++] = pb_unicode_decode(&at);
    token->pattern = points;
    token->pattern_length = count;
    if (!token->normalized) return PB_OK;
    return pb_tokenizer_normalize(arena, points, count, &token->pattern, &token->pattern_length);
}

// Gives the tokens their ids. The same text again takes over with its own flags.
static pb_status assign(pb_tokenizer *t, const description_list *list) {
    t->added = pb_arena_array(t->arena, list->count, sizeof *t->added);
    if (!t->added) return pb_error(PB_ERR_MEMORY, "out of memory");
    t->size = t->vocab_size;
    for (size_t i = 0; i < list->count; i++) {
        const description *const d = &list->items[i];
        pb_added_token token = {.content = d->content,
                                .bytes = d->bytes,
                                .left_strip = d->left_strip,
                                .right_strip = d->right_strip,
                                .normalized = is_normalized(d)};
        size_t at = 0;
        while (at < t->added_count && !is_text(d, t->added[at].content, t->added[at].bytes)) at++;
        token.id = at < t->added_count ? t->added[at].id : pb_vocab_find(t, d->content, d->bytes);
        if (token.id < 0) token.id = t->size++;
        PB_RETURN_IF(pattern_of(t->arena, &token));
        t->added[at] = token;
        if (at == t->added_count) t->added_count++;
    }
    return PB_OK;
}

static int32_t id_of(const pb_tokenizer *t, const description *d) {
    for (size_t i = 0; i < t->added_count; i++)
        if (is_text(d, t->added[i].content, t->added[i].bytes)) return t->added[i].id;
    return -1;
}

pb_status pb_tokenizer_read_added(pb_tokenizer *t, const pb_tokenizer_settings *settings) {
    enum { BOS, EOS, UNK, SEP, PAD, CLS, MASK, NAMES };
    named names[NAMES] = {
        [BOS] = {.key = "bos_token", .fallback = "<|startoftext|>"},
        [EOS] = {.key = "eos_token", .fallback = "<|endoftext|>"},
        [UNK] = {.key = "unk_token", .fallback = "<|endoftext|>"},
        [SEP] = {.key = "sep_token"},
        [PAD] = {.key = "pad_token", .fallback = "<|endoftext|>"},
        [CLS] = {.key = "cls_token"},
        [MASK] = {.key = "mask_token"},
    };
    description_list list = {.items = pb_arena_array(t->arena, MOST_ADDED, sizeof(description))};
    if (!list.items) return pb_error(PB_ERR_MEMORY, "out of memory");
    PB_RETURN_IF(read_added_lists(settings, t->name, &list));
    const size_t added = list.count;
    for (int i = 0; i < NAMES; i++) {
        PB_RETURN_IF(read_named(settings, t->name, &names[i]));
        if (names[i].present) PB_RETURN_IF(append_new(&list, added, &names[i].token, t->name));
    }
    PB_RETURN_IF(read_extra(settings, t->name, added, &list));
    for (size_t i = 0; i < list.count; i++) {  // a token with a name is special, and so is one that is only a string
        for (int j = 0; j < NAMES; j++)
            if (names[j].present && is_text(&names[j].token, list.items[i].content, list.items[i].bytes))
                list.items[i].special = true;
        if (list.items[i].plain) list.items[i].special = true;
    }
    PB_RETURN_IF(assign(t, &list));
    t->bos = id_of(t, &names[BOS].token);
    t->eos = id_of(t, &names[EOS].token);
    t->pad = id_of(t, &names[PAD].token);
    // Bytes without a letter in the vocabulary become the unknown token, which must be in the vocabulary itself.
    const int32_t unknown = pb_vocab_find(t, names[UNK].token.content, names[UNK].token.bytes);
    for (int i = 0; i < 512; i++) {
        int32_t *const id = &t->bytes[i / 2][i % 2];
        if (*id < 0 && unknown < 0)
            return pb_error(PB_ERR_FORMAT, "%s: the vocabulary lacks bytes' letters and unk_token \"%s\"", t->name,
                            names[UNK].token.content);
        if (*id < 0) *id = unknown;
    }
    return PB_OK;
}
