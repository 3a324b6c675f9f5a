// Finds the command and runs it. Messages go to stderr; the exit code is 0, 1 for an error, 2 for a wrong command line,
// 130 where a signal asked to stop.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/nearest.h"
#include "cli/commands.h"
#include "cli/options.h"

typedef struct command {
    const char *name, *summary;
    pb_status (*run)(int argc, char **argv);
} command;

static const command commands[] = {
#define PB_COMMAND(name, summary) {#name, summary, pb_command_##name},
#include "cli/commands.def"
#undef PB_COMMAND
    {NULL, NULL, NULL},
};
enum { COMMAND_COUNT = PB_COUNT_OF(commands) - 1 };

static void print_usage(FILE *file) {
    fputs("Usage: pagebooth COMMAND [ARGUMENT]...\n\n"
          "Fine-tunes Stable Diffusion on a few photos of a subject (DreamBooth).\n\nCommands:\n",
          file);
    for (int i = 0; i < COMMAND_COUNT; i++) fprintf(file, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\n`pagebooth help COMMAND` explains one. `pagebooth --version` prints the version.\n", file);
}

static const command *find_command(const char *name) {
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (!strcmp(commands[i].name, name)) return &commands[i];
    return NULL;
}

static pb_status unknown_command(const char *name) {
    const char *names[COMMAND_COUNT + 1];
    for (int i = 0; i < COMMAND_COUNT; i++) names[i] = commands[i].name;
    names[COMMAND_COUNT] = "help";
    const char *nearest = pb_nearest_name(name, names, COMMAND_COUNT + 1);
    if (nearest) return pb_error(PB_ERR_USAGE, "unknown command `%s`: did you mean `%s`?", name, nearest);
    return pb_error(PB_ERR_USAGE, "unknown command `%s` (`pagebooth --help` lists the commands)", name);
}

static pb_status show_help(const char *name) {
    const command *found = name ? find_command(name) : NULL;
    if (found) return found->run(2, (char *[]){(char *)found->name, "--help", NULL});
    if (name && strcmp(name, "help")) return unknown_command(name);
    print_usage(stdout);
    return PB_OK;
}

static pb_status dispatch(int argc, char **argv) {
    if (argc < 2) {
        print_usage(stderr);
        return pb_error(PB_ERR_USAGE, "a command is missing");
    }
    const char *name = argv[1];
    if (!strcmp(name, "--version")) {
        puts("pagebooth " PB_VERSION);
        return PB_OK;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
        return show_help(argc > 2 ? argv[2] : NULL);
    const command *found = find_command(name);
    return found ? found->run(argc - 1, argv + 1) : unknown_command(name);
}

// Where 0, 1 or 2 is closed, the next file that is opened would get its number, and what is meant for people would be
// written into it. Such a stream fails here instead, as a closed one does.
static void hold_standard_streams(void) {
    int fd;
    while ((fd = open("/dev/null", O_PATH)) >= 0 && fd <= STDERR_FILENO) continue;
    if (fd > STDERR_FILENO) close(fd);
}

int main(int argc, char **argv) {
    hold_standard_streams();
    signal(SIGXFSZ, SIG_IGN);  // a file that would grow beyond `ulimit -f` is an error like a full disk
    pb_status status = dispatch(argc, argv);
    if (fflush(stdout) && status == PB_OK) status = pb_error(PB_ERR_IO, "cannot write to standard output");
    if (status == PB_OK) return 0;
    fprintf(stderr, "pagebooth: %s%s\n", status == PB_ERR_INTERRUPTED ? "" : "error: ", pb_error_message());
    return status == PB_ERR_USAGE ? 2 : status == PB_ERR_INTERRUPTED ? 130 : 1;
}
