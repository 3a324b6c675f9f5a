// Tables that scripts/make_unicode.py makes; all are sorted by their first field.
#ifndef PB_IO_UNICODE_TABLES_H
#define PB_IO_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

typedef struct pb_unicode_range {
    uint32_t first, last;
} pb_unicode_range;

typedef struct pb_unicode_lowering {
    uint32_t first, last, step;  // the code points first, first + step, ... last
    int32_t distance;            // what is added to them
} pb_unicode_lowering;

typedef struct pb_unicode_mark_range {
    uint32_t first, last, combining_class;
} pb_unicode_mark_range;

typedef struct pb_unicode_decomposition {
    uint32_t point, first, second;  // `second` is 0 where there is one part
} pb_unicode_decomposition;

extern const pb_unicode_range pb_unicode_letters[], pb_unicode_numbers[], pb_unicode_spaces[];
extern const size_t pb_unicode_letters_count, pb_unicode_numbers_count, pb_unicode_spaces_count;
extern const pb_unicode_lowering pb_unicode_lowered[];  // without U+0130, which becomes two
extern const size_t pb_unicode_lowered_count;
extern const pb_unicode_mark_range pb_unicode_marks[];
extern const size_t pb_unicode_marks_count;
extern const pb_unicode_decomposition pb_unicode_decomposed[];  // canonical, one level
extern const size_t pb_unicode_decomposed_count;
extern const uint16_t pb_unicode_composed[];  // indices of pb_unicode_decomposed, sorted by (first, second)
extern const size_t pb_unicode_composed_count;

#endif
