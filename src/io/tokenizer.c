#include "io/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "io/tokenizer_internal.h"
#include "io/unicode.h"

enum { TEXT_LIMIT = 256 << 20 };

// Where the ids of one text go. What lies beyond `limit` is cut off anyway, so encoding stops there.
typedef struct encoder {
    const pb_tokenizer *tokenizer;
    pb_arena *arena;
    int32_t *ids;
    size_t count, limit;
    int32_t *word;  // grows with the longest word
    void *scratch;
    size_t word_capacity;
} encoder;

int32_t pb_tokenizer_length(const pb_tokenizer *tokenizer) {
    return tokenizer->length;
}

int32_t pb_tokenizer_size(const pb_tokenizer *tokenizer) {
    return tokenizer->size;
}

pb_status pb_tokenizer_normalize(pb_arena *arena, const uint32_t *points, size_t count, uint32_t **normalized,
                                 size_t *normalized_count) {
    uint32_t *const composed = pb_arena_array(arena, count * PB_UNICODE_NFC_ROOM, sizeof *composed);
    if (!composed) return pb_error(PB_ERR_MEMORY, "out of memory for a text of %zu characters", count);
    const size_t length = pb_unicode_nfc(points, count, composed);
    uint32_t *const out = pb_arena_array(arena, length, PB_UNICODE_LOWER_MOST * sizeof *out);
    if (!out) return pb_error(PB_ERR_MEMORY, "out of memory for a text of %zu characters", count);
    size_t written = 0;
    bool in_space = false;
    for (size_t i = 0; i < length; i++) {
        const bool space = pb_unicode_class_of(composed[i]) == PB_UNICODE_SPACE;
        if (!space)
            written += pb_unicode_lower(composed[i], out + written);
        else if (!in_space)
            out[written++] = ' ';
        in_space = space;
    }
    *normalized = out;
    *normalized_count = written;
    return PB_OK;
}

static void put(encoder *e, int32_t id) {
    if (e->count < e->limit) e->ids[e->count++] = id;
}

static pb_status grow_word(encoder *e, size_t bytes) {
    if (bytes <= e->word_capacity) return PB_OK;
    e->word_capacity = 2 * bytes;
    e->word = pb_arena_array(e->arena, e->word_capacity, sizeof *e->word);
    e->scratch = pb_arena_alloc(e->arena, pb_bpe_scratch_bytes(e->word_capacity));
    if (!e->word || !e->scratch) return pb_error(PB_ERR_MEMORY, "out of memory for a word of %zu bytes", bytes);
    return PB_OK;
}

static pb_status encode_word(encoder *e, const uint32_t *points, size_t count) {
    if (e->count == e->limit) return PB_OK;
    PB_RETURN_IF(grow_word(e, 4 * count));
    size_t letters = 0;
    unsigned char last = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned char bytes[4];
        const size_t length = pb_unicode_encode(points[i], bytes);
        for (size_t j = 0; j < length; j++) e->word[letters++] = e->tokenizer->bytes[last = bytes[j]][0];
    }
    e->word[letters - 1] = e->tokenizer->bytes[last][1];
    const size_t tokens = pb_bpe_merge(e->tokenizer, e->word, letters, e->scratch);
    for (size_t i = 0; i < tokens; i++) put(e, e->word[i]);
    return PB_OK;
}

static bool starts_with(const uint32_t *points, size_t count, const char *text) {
    const size_t length = strlen(text);
    if (count < length) return false;
    for (size_t i = 0; i < length; i++)
        if (points[i] != (unsigned char)text[i]) return false;
    return true;
}

// CLIP's expression for words, tried in this order where the last word ended:
//   <\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
// This is the length of the first two kinds, or 0 ...
static size_t literal_length(const uint32_t *points, size_t count) {
    static const char *const literals[] = {"<|startoftext|>", "<|endoftext|>"};
    for (int i = 0; i < 2; i++)
        if (starts_with(points, count, literals[i])) return strlen(literals[i]);
    return 0;
}

// ... and this of the others; 0 at white space.
static size_t word_length(const uint32_t *points, size_t count) {
    static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < sizeof contractions / sizeof *contractions; i++)
        if (starts_with(points, count, contractions[i])) return strlen(contractions[i]);
    const pb_unicode_class class = pb_unicode_class_of(points[0]);
    if (class == PB_UNICODE_SPACE) return 0;
    if (class == PB_UNICODE_NUMBER) return 1;
    size_t length = 1;
    while (length < count && pb_unicode_class_of(points[length]) == class) length++;
    return length;
}

// Words of a piece of normalised text without added tokens.
static pb_status encode_words(encoder *e, const uint32_t *points, size_t count) {
    for (size_t i = 0; i < count && e->count < e->limit;) {
        const size_t literal = literal_length(points + i, count - i);
        const size_t length = literal ? literal : word_length(points + i, count - i);
        if (literal) {  // GPT-2's expression, which the byte level applies to every word again, makes three of it
            PB_RETURN_IF(encode_word(e, points + i, 2));
            PB_RETURN_IF(encode_word(e, points + i + 2, literal - 4));
            PB_RETURN_IF(encode_word(e, points + i + literal - 2, 2));
        } else if (length) {
            PB_RETURN_IF(encode_word(e, points + i, length));
        }
        i += length ? length : 1;
    }
    return PB_OK;
}

// The longest added token of the kind that begins at `points`.
static const pb_added_token *match(const pb_tokenizer *t, bool normalized, const uint32_t *points, size_t count) {
    const pb_added_token *longest = NULL;
    for (size_t i = 0; i < t->added_count; i++) {
        const pb_added_token *const added = &t->added[i];
        const size_t length = added->pattern_length;
        if (added->normalized != normalized || length == 0 || length > count) continue;
        if (longest && length <= longest->pattern_length) continue;
        if (memcmp(added->pattern, points, length * sizeof *points) == 0) longest = added;
    }
    return longest;
}

static bool is_space(uint32_t point) {
    return pb_unicode_class_of(point) == PB_UNICODE_SPACE;
}

static pb_status encode_piece(encoder *e, bool normalized, const uint32_t *points, size_t count);

// Cuts the added tokens of one kind out of `points`; the raw ones first, then, in the normalised rest, the others.
static pb_status split(encoder *e, bool normalized, const uint32_t *points, size_t count) {
    size_t start = 0;
    for (size_t i = 0; i < count && e->count < e->limit;) {
        const pb_added_token *const added = match(e->tokenizer, normalized, points + i, count - i);
        if (!added) {
            i++;
            continue;
        }
        size_t first = i, end = i += added->pattern_length;
        while (added->left_strip && first > start && is_space(points[first - 1])) first--;
        while (added->right_strip && end < count && is_space(points[end])) end++;
        if (first > start) PB_RETURN_IF(encode_piece(e, normalized, points + start, first - start));
        put(e, added->id);
        start = end;
    }
    return start < count ? encode_piece(e, normalized, points + start, count - start) : PB_OK;
}

static pb_status encode_piece(encoder *e, bool normalized, const uint32_t *points, size_t count) {
    if (normalized) return encode_words(e, points, count);
    uint32_t *folded;
    size_t folded_count;
    PB_RETURN_IF(pb_tokenizer_normalize(e->arena, points, count, &folded, &folded_count));
    return split(e, true, folded, folded_count);
}

static pb_status decode(pb_arena *arena, const char *text, size_t bytes, uint32_t **points, size_t *count) {
    uint32_t *const decoded = pb_arena_array(arena, bytes, sizeof *decoded);
    if (!decoded) return pb_error(PB_ERR_MEMORY, "out of memory for a text of %zu bytes", bytes);
    const char *const end = text + bytes;
    *count = 0;
    for (const char *at = text; at < end;) {
        if (pb_utf8_sequence(at, end) == 0)
            return pb_error(PB_ERR_FORMAT, "the text is not UTF-8 at byte %zu", (size_t)(at - text));
        decoded[(*count)++] = pb_unicode_decode(&at);
    }
    *points = decoded;
    return PB_OK;
}

pb_status pb_tokenizer_encode(const pb_tokenizer *tokenizer, const char *text, size_t bytes, int32_t length,
                              int32_t *ids) {
    assert(length >= 2);
    pb_status status = PB_OK;
    uint32_t *points = NULL;
    size_t count = 0;
    pb_arena *const arena = pb_arena_create();
    if (!arena) PB_FAIL(PB_ERR_MEMORY, "out of memory");
    if (bytes > TEXT_LIMIT) PB_FAIL(PB_ERR_UNSUPPORTED, "a text of %zu bytes is too long", bytes);
    PB_TRY(decode(arena, text, bytes, &points, &count));
    encoder e = {.tokenizer = tokenizer, .arena = arena, .ids = ids + 1, .limit = (size_t)length - 2};
    PB_TRY(split(&e, false, points, count));
    ids[0] = tokenizer->bos;
    ids[1 + e.count] = tokenizer->eos;
    for (size_t i = 2 + e.count; i < (size_t)length; i++) ids[i] = tokenizer->pad;
fail:
    pb_arena_destroy(arena);
    return status;
}
