#include "io/unicode.h"

#include "io/unicode_tables.h"

// The last of `count` entries of `size` bytes whose first field is not above `point`; NULL where there is none.
static const void *last_not_above(const void *table, size_t count, size_t size, uint32_t point) {
    size_t low = 0, high = count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const uint32_t first = *(const uint32_t *)((const char *)table + middle * size);
        if (first <= point)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? (const char *)table + (low - 1) * size : NULL;
}

static bool is_in(const pb_unicode_range *ranges, size_t count, uint32_t point) {
    const pb_unicode_range *const range = last_not_above(ranges, count, sizeof *ranges, point);
    return range && point <= range->last;
}

pb_unicode_class pb_unicode_class_of(uint32_t point) {
    if (is_in(pb_unicode_letters, pb_unicode_letters_count, point)) return PB_UNICODE_LETTER;
    if (is_in(pb_unicode_spaces, pb_unicode_spaces_count, point)) return PB_UNICODE_SPACE;
    if (is_in(pb_unicode_numbers, pb_unicode_numbers_count, point)) return PB_UNICODE_NUMBER;
    return PB_UNICODE_SIGN;
}

size_t pb_unicode_lower(uint32_t point, uint32_t lower[PB_UNICODE_LOWER_MOST]) {
    lower[0] = point;
    if (point == 0x130) {
        lower[0] = 'i';
        lower[1] = 0x307;
        return 2;
    }
    const pb_unicode_lowering *const run =
        last_not_above(pb_unicode_lowered, pb_unicode_lowered_count, sizeof *run, point);
    if (run && point <= run->last && (point - run->first) % run->step == 0) lower[0] = point + (uint32_t)run->distance;
    return 1;
}

static uint32_t combining_class(uint32_t point) {
    const pb_unicode_mark_range *const range =
        last_not_above(pb_unicode_marks, pb_unicode_marks_count, sizeof *range, point);
    return range && point <= range->last ? range->combining_class : 0;
}

// Hangul syllables are composed by arithmetic (Unicode, section 3.12).
enum { SYLLABLES = 0xac00, LEADS = 0x1100, VOWELS = 0x1161, TAILS = 0x11a7 };
enum { LEAD_COUNT = 19, VOWEL_COUNT = 21, TAIL_COUNT = 28, SYLLABLE_COUNT = LEAD_COUNT * VOWEL_COUNT * TAIL_COUNT };

static size_t decompose(uint32_t point, uint32_t *out) {
    if (point >= SYLLABLES && point < SYLLABLES + SYLLABLE_COUNT) {
        const uint32_t index = point - SYLLABLES, tail = index % TAIL_COUNT;
        out[0] = LEADS + index / (VOWEL_COUNT * TAIL_COUNT);
        out[1] = VOWELS + index / TAIL_COUNT % VOWEL_COUNT;
        if (tail) out[2] = TAILS + tail;
        return tail ? 3 : 2;
    }
    const pb_unicode_decomposition *const found =
        last_not_above(pb_unicode_decomposed, pb_unicode_decomposed_count, sizeof *found, point);
    if (!found || found->point != point) {
        out[0] = point;
        return 1;
    }
    const size_t count = decompose(found->first, out);  // only first parts have parts of their own
    if (found->second) out[count] = found->second;
    return count + (found->second != 0);
}

// The code point that two make, or 0.
static uint32_t compose(uint32_t first, uint32_t second) {
    if (first >= LEADS && first < LEADS + LEAD_COUNT && second >= VOWELS && second < VOWELS + VOWEL_COUNT)
        return SYLLABLES + ((first - LEADS) * VOWEL_COUNT + (second - VOWELS)) * TAIL_COUNT;
    if (first >= SYLLABLES && first < SYLLABLES + SYLLABLE_COUNT && (first - SYLLABLES) % TAIL_COUNT == 0 &&
        second > TAILS && second < TAILS + TAIL_COUNT)
        return first + (second - TAILS);
    size_t low = 0, high = pb_unicode_composed_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const pb_unicode_decomposition *const pair = &pb_unicode_decomposed[pb_unicode_composed[middle]];
        if (pair->first == first && pair->second == second) return pair->point;
        if (pair->first < first || (pair->first == first && pair->second < second))
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

// Sorts a run of marks by their classes, keeping the order of equals. It counts: no text takes quadratic time.
static void order_marks(uint32_t *marks, size_t count, uint32_t *spare) {
    size_t starts[257] = {0};
    for (size_t i = 0; i < count; i++) starts[combining_class(marks[i]) + 1]++;
    for (size_t i = 1; i < 257; i++) starts[i] += starts[i - 1];
    for (size_t i = 0; i < count; i++) spare[starts[combining_class(marks[i])]++] = marks[i];
    for (size_t i = 0; i < count; i++) marks[i] = spare[i];
}

static size_t decompose_all(const uint32_t *points, size_t count, uint32_t *out, uint32_t *spare) {
    size_t length = 0;
    for (size_t i = 0; i < count; i++) length += decompose(points[i], out + length);
    for (size_t first = 0; first < length;) {
        size_t last = first;
        while (last < length && combining_class(out[last])) last++;
        if (last - first > 1) order_marks(out + first, last - first, spare);
        first = last + (last == first);
    }
    return length;
}

size_t pb_unicode_nfc(const uint32_t *points, size_t count, uint32_t *out) {
    const size_t length = decompose_all(points, count, out, out + PB_UNICODE_NFC_ROOM / 2 * count);
    size_t written = 0, starter = SIZE_MAX;
    uint32_t last_class = 0;  // of what was written after the starter; 0 right after it
    for (size_t i = 0; i < length; i++) {
        const uint32_t class = combining_class(out[i]);
        const bool adjacent = starter != SIZE_MAX && starter + 1 == written;
        // Blocked by a mark of the same or a higher class in between, or by a starter.
        if (starter != SIZE_MAX && (adjacent || (last_class != 0 && last_class < class))) {
            const uint32_t pair = compose(out[starter], out[i]);
            if (pair) {
                out[starter] = pair;
                continue;
            }
        }
        if (class == 0) starter = written;
        last_class = class;
        out[written++] = out[i];
    }
    return written;
}

size_t pb_unicode_encode(uint32_t point, unsigned char bytes[4]) {
    if (point < 0x80) {
        bytes[0] = (unsigned char)point;
        return 1;
    }
    const size_t count = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = count - 1; i > 0; i--, point >>= 6) bytes[i] = (unsigned char)(0x80 | (point & 0x3f));
    bytes[0] = (unsigned char)(0xf00 >> count | point);
    return count;
}

uint32_t pb_unicode_decode(const char **at) {
    const unsigned char *const u = (const unsigned char *)*at;
    const size_t count = u[0] < 0x80 ? 1 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    uint32_t point = count == 1 ? u[0] : u[0] & (0x7fu >> count);
    for (size_t i = 1; i < count; i++) point = point << 6 | (u[i] & 0x3f);
    *at += count;
    return point;
}
