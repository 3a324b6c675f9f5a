// Errors are returned, never exited on. A function that can fail returns pb_status; the first failure records a
// message for people in a thread-local buffer. Programming errors assert.
#ifndef PB_BASE_ERROR_H
#define PB_BASE_ERROR_H

#include <stddef.h>

typedef enum pb_status {
    PB_OK = 0,
    PB_ERR_USAGE,        // the command line is off (the program exits with 2)
    PB_ERR_IO,           // a system call on a file failed
    PB_ERR_FORMAT,       // a file's content is not what it should be
    PB_ERR_UNSUPPORTED,  // well formed, but nothing that this program does
    PB_ERR_MEMORY,       // an allocation failed
    PB_ERR_BUDGET,       // does not fit the memory it was given
    PB_ERR_NUMERIC,      // NaN or infinity where training cannot go on
    PB_ERR_INTERRUPTED,  // a signal asked to stop
    PB_ERR_INTERNAL      // an invariant of ours is broken (a rejected program, say)
} pb_status;

// Records the message of a new error and returns `code`. Name the file, the place in it, and the remedy.
pb_status pb_error(pb_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Puts "context: " before the recorded message; returns `code` for convenience.
pb_status pb_error_context(pb_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The last recorded message of this thread, or "" when there is none. Never NULL.
const char *pb_error_message(void);

void pb_error_clear(void);

// Names of files and tensors come from strangers: control characters, and bytes that are no UTF-8, become \n or \x1b in
// `shown`, so that they can neither move a terminal's cursor nor begin a line of their own. Messages are made so.
void pb_error_escape(const char *text, char *shown, size_t room);

// For functions with a `pb_status status` and a single exit labelled `fail` (reached on success as well).
#define PB_TRY(expression)                               \
    do {                                                 \
        if ((status = (expression)) != PB_OK) goto fail; \
    } while (0)
#define PB_FAIL(code, ...)                      \
    do {                                        \
        status = pb_error((code), __VA_ARGS__); \
        goto fail;                              \
    } while (0)
// For functions that have nothing to release.
#define PB_RETURN_IF(expression)                    \
    do {                                            \
        pb_status pb_status_ = (expression);        \
        if (pb_status_ != PB_OK) return pb_status_; \
    } while (0)

#endif
