// Shows that alloc_count.c sees what it is to see: "steps" that allocate in every way that is counted, then ones that
// do not. usage: alloc_probe DIRECTORY
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *volatile sink;

static bool end_step(int fd) {
    static const char line[] = "{\"step\": 1}\n";
    return write(fd, line, sizeof line - 1) == sizeof line - 1;
}

int main(int argc, char **argv) {
    char path[4096];
    if (argc != 2) return 2;
    snprintf(path, sizeof path, "%s/metrics.jsonl", argv[1]);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    sink = malloc(1000);  // step 1
    bool ok = fd >= 0 && end_step(fd);
    ok = ok && end_step(fd);  // step 2: nothing
    free(sink);
    sink = calloc(10, 10);  // step 3: five allocations
    sink = realloc(sink, 5000);
    free(sink);
    void *aligned = NULL;
    ok = ok && !posix_memalign(&aligned, 64, 100);
    free(aligned);
    free(sink = aligned_alloc(64, 128));
    free(sink = strdup("a library's own"));
    ok = ok && end_step(fd);
    size_t page = 4096;
    void *map = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);  // step 4: two mappings
    ok = ok && map != MAP_FAILED && !munmap(map, page) && end_step(fd);
    ok = ok && end_step(fd);  // step 5: nothing
    return ok ? 0 : 1;
}
