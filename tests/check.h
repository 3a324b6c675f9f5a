// The whole test framework: CHECK counts failures and says where, CHECK_DONE returns the exit code.
#ifndef PB_TESTS_CHECK_H
#define PB_TESTS_CHECK_H

#include <math.h>
#include <stdio.h>
#include <string.h>

static int check_failures, check_count;

#define CHECK(condition) CHECK_THAT((condition), "%s", #condition)
#define CHECK_THAT(condition, ...)                                  \
    do {                                                            \
        check_count++;                                              \
        if (!(condition)) {                                         \
            check_failures++;                                       \
            fprintf(stderr, "%s:%d: failed: ", __FILE__, __LINE__); \
            fprintf(stderr, __VA_ARGS__);                           \
            fputc('\n', stderr);                                    \
        }                                                           \
    } while (0)
#define CHECK_OK(call) CHECK_THAT((call) == PB_OK, "%s: %s", #call, pb_error_message())
#define CHECK_DONE() (printf("%d checks, %d failed\n", check_count, check_failures), check_failures || !check_count)
#define SKIP(reason) (printf("skipped: %s\n", (reason)), 77)

#endif
