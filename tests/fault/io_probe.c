// Eleven operations of the kinds that io_fault.c makes fail, with what came of them on stdout.
// usage: io_probe DIRECTORY
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void report(const char *call, long result) {
    printf("%s %ld%s%s\n", call, result, result < 0 ? " " : "", result < 0 ? strerrorname_np(errno) : "");
}

int main(int argc, char **argv) {
    if (argc != 2 || chdir(argv[1])) return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    int fd = open("a", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    report("open", fd < 0 ? -1 : 0);
    report("write", write(fd, "0123456789", 10));
    report("pwrite", pwrite(fd, "0123456789", 10, 10));
    report("fsync", fsync(fd));
    close(fd);
    report("rename", rename("a", "b"));
    report("mkdir", mkdir("c", 0755));
    int parent = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // not counted
    report("openat", openat(parent, "c/d", O_WRONLY | O_CREAT | O_CLOEXEC, 0644) < 0 ? -1 : 0);
    report("unlinkat", unlinkat(parent, "c/d", 0));
    report("rmdir", rmdir("c"));
    report("linkat", linkat(AT_FDCWD, "b", parent, "e", 0));
    report("unlink", unlink("b"));
    return 0;
}
