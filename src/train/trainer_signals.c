#include <signal.h>
#include <unistd.h>

#include "train/trainer_parts.h"

static volatile sig_atomic_t caught;

// The second signal does not wait: whatever is on the disk is whole at any instant.
static void on_signal(int number) {
    if (caught) _exit(128 + number);
    caught = number;
}

void pb_signals_catch(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);  // a reader of the progress that went away is no reason to lose the run
}

int pb_signals_caught(void) {
    return caught;
}
