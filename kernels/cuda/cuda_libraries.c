// Where NVIDIA's libraries lie differs from machine to machine: the system's folders, a toolkit, or the packages that
// pip brought along with PyTorch. The search goes through all of those, the dynamic loader's own path (LD_LIBRARY_PATH
// and what ldconfig knows) first, and takes the first that loads.
#include "kernels/cuda/cuda_libraries.h"

#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_PATTERNS = 160, CUDNN_OLDEST = 90800 };

// Folders as glob patterns, in the order of the search.
typedef struct search_path {
    char *pattern[MOST_PATTERNS];
    int count;
} search_path;

typedef struct library {
    void *handle;
    char path[PATH_MAX];
} library;

static void add_pattern(search_path *s, const char *prefix, const char *rest) {
    char *text = NULL;
    if (s->count == MOST_PATTERNS || asprintf(&text, "%s%s", prefix, rest) < 0) return;
    for (int i = 0; i < s->count; i++) {
        if (strcmp(s->pattern[i], text) != 0) continue;
        free(text);
        return;
    }
    s->pattern[s->count++] = text;
}

// What pip puts beside a Python whose installation begins at `prefix`.
static void add_python(search_path *s, const char *prefix) {
    static const char *const packages[] = {"/lib/python3*/site-packages", "/lib/python3*/dist-packages",
                                           "/lib/python3/dist-packages", "/local/lib/python3*/dist-packages"};
    for (size_t i = 0; i < sizeof packages / sizeof *packages; i++) {
        char folder[PATH_MAX];
        if (snprintf(folder, sizeof folder, "%s%s", prefix, packages[i]) >= (int)sizeof folder) continue;
        add_pattern(s, folder, "/nvidia/*/lib");
        add_pattern(s, folder, "/torch/lib");
    }
}

// The python3 that a shell would start: its folder's parent as PATH has it (a virtual environment) and as the links
// resolve (what the environment was made from).
static void add_python_on_path(search_path *s) {
    const char *path = getenv("PATH");
    while (path && *path) {
        const size_t length = strcspn(path, ":");
        char python[PATH_MAX], real[PATH_MAX];
        if (length > 0 && snprintf(python, sizeof python, "%.*s/python3", (int)length, path) < (int)sizeof python &&
            access(python, X_OK) == 0) {
            char *candidates[] = {python, realpath(python, real)};
            for (int i = 0; i < 2; i++) {
                for (int up = 0; candidates[i] && up < 2; up++) {
                    char *slash = strrchr(candidates[i], '/');
                    if (slash) *slash = 0;
                }
                if (candidates[i]) add_python(s, candidates[i]);
            }
        }
        path += length + (path[length] == ':');
    }
}

static void search_path_init(search_path *s) {
    *s = (search_path){.count = 0};
    static const char *const folders[] = {"/usr/local/cuda/lib64",
                                          "/usr/local/cuda/targets/x86_64-linux/lib",
                                          "/usr/local/cuda-1[23]*/lib64",
                                          "/usr/lib/x86_64-linux-gnu",
                                          "/usr/lib64",
                                          "/opt/cuda/lib64"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) add_pattern(s, folders[i], "");
    const char *environment = getenv("VIRTUAL_ENV"), *conda = getenv("CONDA_PREFIX"), *home = getenv("HOME");
    if (environment && *environment) add_python(s, environment);
    if (conda && *conda) {
        add_pattern(s, conda, "/lib");  // conda's own packages
        add_python(s, conda);
    }
    add_python_on_path(s);
    static const char *const at_home[] = {"/.local", "/.pyenv/versions/*"};
    for (size_t i = 0; home && *home && i < sizeof at_home / sizeof *at_home; i++) {
        char folder[PATH_MAX];
        if (snprintf(folder, sizeof folder, "%s%s", home, at_home[i]) < (int)sizeof folder) add_python(s, folder);
    }
    static const char *const others[] = {"/usr", "/usr/local", "/opt/*", "/opt/*/.venv"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) add_python(s, others[i]);
}

static void search_path_deinit(search_path *s) {
    for (int i = 0; i < s->count; i++) free(s->pattern[i]);
}

// Opens the first of `names` that any folder has. Symbols stay local to it: a second copy that somebody else loaded
// does not mix with this one.
static bool open_first(const char *const *names, const search_path *s, library *found) {
    for (int n = 0; names[n]; n++) {
        found->handle = dlopen(names[n], RTLD_NOW | RTLD_LOCAL);
        for (int i = 0; !found->handle && i < s->count; i++) {
            char pattern[PATH_MAX];
            if (snprintf(pattern, sizeof pattern, "%s/%s", s->pattern[i], names[n]) >= (int)sizeof pattern) continue;
            glob_t matches;
            if (glob(pattern, 0, NULL, &matches) == 0) {
                for (size_t k = 0; !found->handle && k < matches.gl_pathc; k++)
                    found->handle = dlopen(matches.gl_pathv[k], RTLD_NOW | RTLD_LOCAL);
                globfree(&matches);
            }
        }
        if (!found->handle) continue;
        const struct link_map *map = NULL;
        const bool known = dlinfo(found->handle, RTLD_DI_LINKMAP, (void *)&map) == 0 && map && map->l_name[0];
        snprintf(found->path, sizeof found->path, "%s", known ? map->l_name : names[n]);
        return true;
    }
    return false;
}

static pb_status not_found(const char *what, const char *const *names, const search_path *s, const char *packages) {
    char folders[2400] = "the loader's path (LD_LIBRARY_PATH, ldconfig)";
    for (int i = 0; i < s->count; i++) {
        const size_t used = strlen(folders);
        if (used + strlen(s->pattern[i]) + 3 > sizeof folders) break;
        snprintf(folders + used, sizeof folders - used, ", %s", s->pattern[i]);
    }
    return pb_error(PB_ERR_UNSUPPORTED,
                    "%s was not found: no %s that loads. Install the CUDA toolkit's library or %s with pip, or name "
                    "its folder in LD_LIBRARY_PATH. Looked in: %s",
                    what, names[0], packages, folders);
}

static pb_status missing_symbol(const char *symbol, const library *found) {
    return pb_error(PB_ERR_UNSUPPORTED, "%s has no function %s: its version is not one that this program can use",
                    found->path, symbol);
}

static library cudnn, cublas;

// Functions and data pointers are the same thing to dlsym, not to C.
#define LOAD_SYMBOL(field, symbol)                           \
    {                                                        \
        void *address = dlsym(found->handle, #symbol);       \
        if (!address) return missing_symbol(#symbol, found); \
        memcpy(&api->field, &address, sizeof api->field);    \
    }

static pb_status load_cudnn_symbols(const library *found, pb_cudnn_api *api) {
    PB_CUDNN_SYMBOLS(LOAD_SYMBOL)
    if (api->version() < CUDNN_OLDEST)
        return pb_error(PB_ERR_UNSUPPORTED, "%s is cuDNN %zu.%zu; 9.8 or later is needed", found->path,
                        api->version() / 10000, api->version() / 100 % 100);
    return PB_OK;
}

static pb_status load_cublas_symbols(const library *found, pb_cublas_api *api) {
    PB_CUBLAS_SYMBOLS(LOAD_SYMBOL)
    return PB_OK;
}

// cuDNN opens its compiler by its name alone; where that is nowhere that the loader would look, having it open already
// helps. Without it kernels that have to be compiled are passed over. Which of the two it is depends on the CUDA that
// cuDNN was made for.
static void open_compilers(const search_path *s) {
    static const char *const names[][2] = {{"libnvrtc.so.13", NULL}, {"libnvrtc.so.12", NULL}};
    library compiler;
    for (int i = 0; i < 2; i++) open_first(names[i], s, &compiler);
}

pb_status pb_cublas_load(const pb_cublas_api **api) {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
    static pb_cublas_api table;
    pb_status status = PB_OK;
    if (!cublas.handle) {
        library found;
        search_path s;
        search_path_init(&s);
        status = open_first(names, &s, &found)
                     ? load_cublas_symbols(&found, &table)
                     : not_found("cuBLASLt", names, &s, "nvidia-cublas (nvidia-cublas-cu12 for CUDA 12)");
        if (status == PB_OK) cublas = found;
        search_path_deinit(&s);
    }
    *api = status == PB_OK ? &table : NULL;
    return status;
}

pb_status pb_cudnn_load(const pb_cudnn_api **api) {
    static const char *const names[] = {"libcudnn.so.9", NULL};
    static pb_cudnn_api table;
    pb_status status = PB_OK;
    if (!cudnn.handle) {
        // Some of cuDNN's engines want cuBLASLt: the copy that we found, should they not find their own.
        const pb_cublas_api *unused;
        if (pb_cublas_load(&unused) != PB_OK) pb_error_clear();
        library found;
        search_path s;
        search_path_init(&s);
        open_compilers(&s);
        status = open_first(names, &s, &found)
                     ? load_cudnn_symbols(&found, &table)
                     : not_found("cuDNN 9", names, &s, "nvidia-cudnn-cu13 (nvidia-cudnn-cu12 for CUDA 12)");
        if (status == PB_OK) cudnn = found;
        search_path_deinit(&s);
    }
    *api = status == PB_OK ? &table : NULL;
    return status;
}

const char *pb_cudnn_path(void) {
    return cudnn.handle ? cudnn.path : NULL;
}

const char *pb_cublas_path(void) {
    return cublas.handle ? cublas.path : NULL;
}
