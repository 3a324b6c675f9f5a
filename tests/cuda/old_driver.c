// A driver, libcuda.so.1, that is too old: it knows its version, which is all that CUDA's runtime asks of one before it
// refuses it, and where its few functions are.
#include <string.h>

int cuDriverGetVersion(int *version);
int cuInit(unsigned flags);
int cuGetProcAddress_v2(const char *symbol, void **function, int version, unsigned long long flags, int *found);

enum { NOT_FOUND = 500 };

int cuDriverGetVersion(int *version) {
    *version = 12080;
    return 0;
}

int cuInit(unsigned flags) {
    (void)flags;
    return 0;
}

int cuGetProcAddress_v2(const char *symbol, void **function, int version, unsigned long long flags, int *found) {
    int (*const get_version)(int *) = cuDriverGetVersion;
    int (*const init)(unsigned) = cuInit;
    int (*const get)(const char *, void **, int, unsigned long long, int *) = cuGetProcAddress_v2;
    (void)version;
    (void)flags;
    *function = 0;
    if (!strcmp(symbol, "cuDriverGetVersion")) memcpy(function, &get_version, sizeof get_version);
    if (!strcmp(symbol, "cuInit")) memcpy(function, &init, sizeof init);
    if (!*symbol || !strcmp(symbol, "cuGetProcAddress")) memcpy(function, &get, sizeof get);
    if (found) *found = !*function;
    return *function ? 0 : NOT_FOUND;
}
