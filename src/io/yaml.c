// libyaml's events as a tree. libyaml has no limits of its own: its work per token grows with the depth of flow
// brackets, and 200 kB of `[` take it longer than anybody waits. So the size and the number of brackets are capped
// before it sees the text (brackets inside of quotes count as well: telling them apart would take a second scanner,
// with faults of its own), and the depth as its events come.
#include "io/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MOST_BRACKETS = 256, MOST_NODES = 2000 };

typedef struct builder {
    pb_arena *arena;
    const char *text, *name;
    size_t bytes;
    yaml_parser_t parser;
    pb_yaml *open[PB_YAML_DEPTH + 1], *last[PB_YAML_DEPTH + 1];
    int depth;
    size_t nodes;
    // The key of a member whose value comes next.
    const char *key;
    int key_line, key_column;
} builder;

static pb_status fail_at(const builder *b, yaml_mark_t mark, const char *message) {
    return pb_error(PB_ERR_FORMAT, "%s:%zu:%zu: %s", b->name, mark.line + 1, mark.column + 1, message);
}

static pb_status check_size(const char *text, size_t bytes, const char *name) {
    if (bytes > PB_YAML_BYTES)
        return pb_error(PB_ERR_FORMAT, "%s has %zu bytes; a configuration has at most %d", name, bytes, PB_YAML_BYTES);
    int brackets = 0;
    if (bytes > 1 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2)))
        return pb_error(PB_ERR_FORMAT, "%s is in UTF-16: save the file as UTF-8", name);
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '\0') return pb_error(PB_ERR_FORMAT, "%s: byte %zu is NUL: this is no text", name, i);
        if (text[i] != '[' && text[i] != '{') continue;
        if (++brackets > MOST_BRACKETS)
            return pb_error(PB_ERR_FORMAT, "%s: more than %d opening brackets", name, MOST_BRACKETS);
    }
    return PB_OK;
}

// A new node as the next child of the innermost collection.
static pb_status append(builder *b, const yaml_event_t *event, pb_yaml_type type, pb_yaml **result) {
    const yaml_mark_t mark = event->start_mark;
    if (++b->nodes > MOST_NODES) return fail_at(b, mark, "too many values");
    pb_yaml *parent = b->open[b->depth], *node = pb_arena_alloc(b->arena, sizeof *node);
    if (!node) return pb_error(PB_ERR_MEMORY, "%s: no memory", b->name);
    *node = (pb_yaml){.type = type, .key = b->key, .line = (int)mark.line + 1, .column = (int)mark.column + 1};
    if (b->key) {
        node->line = b->key_line;
        node->column = b->key_column;
        b->key = NULL;
    }
    if (b->last[b->depth])
        b->last[b->depth]->next = node;
    else
        parent->first = node;
    b->last[b->depth] = node;
    parent->count++;
    *result = node;
    return PB_OK;
}

static pb_status open_collection(builder *b, const yaml_event_t *event, pb_yaml_type type) {
    pb_yaml *node;
    if (b->open[b->depth]->type == PB_YAML_MAPPING && !b->key)
        return fail_at(b, event->start_mark, "a key must be a scalar");
    if (b->depth == PB_YAML_DEPTH) return fail_at(b, event->start_mark, "nested more than 32 levels deep");
    PB_RETURN_IF(append(b, event, type, &node));
    b->open[++b->depth] = node;
    b->last[b->depth] = NULL;
    return PB_OK;
}

static pb_status take_scalar(builder *b, const yaml_event_t *event) {
    const char *value = (const char *)event->data.scalar.value;
    if (strlen(value) != event->data.scalar.length) return fail_at(b, event->start_mark, "a NUL character in a text");
    const char *text = pb_arena_string(b->arena, value);
    if (!text) return pb_error(PB_ERR_MEMORY, "%s: no memory", b->name);
    const pb_yaml *parent = b->open[b->depth];
    if (parent->type == PB_YAML_MAPPING && !b->key) {
        if (pb_yaml_get(parent, text)) {
            char message[160];
            snprintf(message, sizeof message, "the key `%.100s` is there twice", text);
            return fail_at(b, event->start_mark, message);
        }
        b->key = text;
        b->key_line = (int)event->start_mark.line + 1;
        b->key_column = (int)event->start_mark.column + 1;
        return PB_OK;
    }
    pb_yaml *node;
    PB_RETURN_IF(append(b, event, PB_YAML_SCALAR, &node));
    node->text = text;
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return PB_OK;
}

// Anchors and tags, on any node.
static pb_status refuse_extras(const builder *b, const yaml_event_t *event, const yaml_char_t *anchor,
                               const yaml_char_t *tag) {
    if (anchor) return fail_at(b, event->start_mark, "anchors are not supported: write the value out");
    if (tag) return fail_at(b, event->start_mark, "tags are not supported");
    return PB_OK;
}

static pb_status take_event(builder *b, const yaml_event_t *event, bool *done) {
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (event->data.document_start.tag_directives.start != event->data.document_start.tag_directives.end)
            return fail_at(b, event->start_mark, "tags are not supported");
        return b->open[0]->count ? fail_at(b, event->start_mark, "a second document: a configuration is one") : PB_OK;
    case YAML_ALIAS_EVENT: return fail_at(b, event->start_mark, "aliases are not supported: write the value out");
    case YAML_SCALAR_EVENT:
        PB_RETURN_IF(refuse_extras(b, event, event->data.scalar.anchor, event->data.scalar.tag));
        return take_scalar(b, event);
    case YAML_SEQUENCE_START_EVENT:
        PB_RETURN_IF(refuse_extras(b, event, event->data.sequence_start.anchor, event->data.sequence_start.tag));
        return open_collection(b, event, PB_YAML_SEQUENCE);
    case YAML_MAPPING_START_EVENT:
        PB_RETURN_IF(refuse_extras(b, event, event->data.mapping_start.anchor, event->data.mapping_start.tag));
        return open_collection(b, event, PB_YAML_MAPPING);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: b->depth--; return PB_OK;
    case YAML_STREAM_END_EVENT: *done = true; return PB_OK;
    default: return PB_OK;
    }
}

// libyaml's reader names no place, only a byte.
static yaml_mark_t mark_of_byte(const char *text, size_t offset) {
    yaml_mark_t mark = {.index = offset};
    for (size_t i = 0; i < offset; i++) {
        mark.column = text[i] == '\n' ? 0 : mark.column + 1;
        mark.line += text[i] == '\n';
    }
    return mark;
}

// What libyaml says of the tab that somebody's editor has put there does not mention it.
static const char *problem_at(const builder *b, yaml_mark_t mark) {
    if (b->parser.error == YAML_SCANNER_ERROR && mark.index < b->bytes && b->text[mark.index] == '\t')
        return "a tab: YAML is indented with spaces";
    const char *problem = b->parser.problem ? b->parser.problem : "no YAML";
    static const struct {
        const char *says, *means;
    } plainly[] = {
        {"mapping values are not allowed",
         "a colon where there can be none: a text that has one needs quotes, and the line before a `key:`"},
        {"could not find expected ':'", "a line before this one is no `key: value`"},
        {"found unexpected end of stream", "a quote is opened and never closed"},
        {"UTF-8", "no UTF-8: save the file as UTF-8"},
    };
    for (size_t i = 0; i < sizeof plainly / sizeof *plainly; i++)
        if (strstr(problem, plainly[i].says)) return plainly[i].means;
    return problem;
}

static pb_status parse_events(builder *b) {
    for (bool done = false; !done;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&b->parser, &event)) {
            if (b->parser.error == YAML_MEMORY_ERROR) return pb_error(PB_ERR_MEMORY, "%s: no memory", b->name);
            const yaml_mark_t mark = b->parser.error == YAML_READER_ERROR
                                         ? mark_of_byte(b->text, b->parser.problem_offset)
                                         : b->parser.problem_mark;
            return fail_at(b, mark, problem_at(b, mark));
        }
        const pb_status status = take_event(b, &event, &done);
        yaml_event_delete(&event);
        PB_RETURN_IF(status);
    }
    return PB_OK;
}

pb_status pb_yaml_parse(pb_arena *arena, const char *text, size_t bytes, const char *name, const pb_yaml **root) {
    PB_RETURN_IF(check_size(text, bytes, name));
    pb_yaml top = {.type = PB_YAML_SEQUENCE}, *empty = pb_arena_alloc(arena, sizeof *empty);
    // Some editors begin a UTF-8 file with a byte order mark.
    const size_t mark = bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    text += mark;
    bytes -= mark;
    builder b = {.arena = arena, .text = text, .bytes = bytes, .name = name, .open = {&top}};
    if (!empty || !yaml_parser_initialize(&b.parser)) return pb_error(PB_ERR_MEMORY, "%s: no memory", name);
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, bytes);
    const pb_status status = parse_events(&b);
    yaml_parser_delete(&b.parser);
    PB_RETURN_IF(status);
    *empty = (pb_yaml){.type = PB_YAML_MAPPING, .line = 1, .column = 1};
    // "---" alone is a document with an empty scalar.
    const bool nothing = !top.first || (top.first->type == PB_YAML_SCALAR && top.first->plain && !top.first->text[0]);
    *root = nothing ? empty : top.first;
    return PB_OK;
}

const pb_yaml *pb_yaml_get(const pb_yaml *mapping, const char *key) {
    for (const pb_yaml *m = mapping->type == PB_YAML_MAPPING ? mapping->first : NULL; m; m = m->next)
        if (strcmp(m->key, key) == 0) return m;
    return NULL;
}

static bool is_plain(const pb_yaml *node) {
    return node->type == PB_YAML_SCALAR && node->plain;
}

static bool is_one_of(const char *text, const char *const *words) {
    for (; *words; words++)
        if (strcmp(text, *words) == 0) return true;
    return false;
}

bool pb_yaml_is_null(const pb_yaml *node) {
    static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};
    return is_plain(node) && is_one_of(node->text, words);
}

bool pb_yaml_bool(const pb_yaml *node, bool *value) {
    static const char *const yes[] = {"true", "True", "TRUE", NULL}, *const no[] = {"false", "False", "FALSE", NULL};
    if (!is_plain(node)) return false;
    *value = is_one_of(node->text, yes);
    return *value || is_one_of(node->text, no);
}

// [-+]? [0-9]+, the core schema's decimal integer.
static size_t skip_digits(const char *text) {
    return strspn(text, "0123456789");
}

bool pb_yaml_int(const pb_yaml *node, int64_t *value) {
    if (!is_plain(node)) return false;
    const char *digits = node->text + (node->text[0] == '-' || node->text[0] == '+');
    const size_t count = skip_digits(digits);
    if (count == 0 || digits[count]) return false;
    errno = 0;
    *value = strtoll(node->text, NULL, 10);
    return errno == 0;
}

// [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?, the core schema's float.
bool pb_yaml_double(const pb_yaml *node, double *value) {
    if (!is_plain(node)) return false;
    const char *at = node->text + (node->text[0] == '-' || node->text[0] == '+');
    const size_t whole = skip_digits(at);
    at += whole;
    if (*at == '.') {
        const size_t fraction = skip_digits(++at);
        if (whole + fraction == 0) return false;
        at += fraction;
    } else if (whole == 0) {
        return false;
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        at += *at == '-' || *at == '+';
        const size_t exponent = skip_digits(at);
        if (exponent == 0) return false;
        at += exponent;
    }
    if (*at) return false;
    *value = strtod(node->text, NULL);
    return isfinite(*value);
}
